// What a job has cost: tokens, wall-clock seconds and device seconds, by stage and by iteration.

import { Bars } from "../../parts/charts.js";
import { duration, number, short, words } from "../../parts/format.js";
import { chosen, Choice } from "../../parts/iterations.js";
import { Card, Empty, Facts, Table } from "../../parts/ui.js";
import { html } from "../../vendor/preact.js";

// {written, read, trained, seconds, devices}: tokens that a model wrote, of prompts, and trained on.
const of = (stage) => ({
  written: stage.counts.tokens || 0,
  read: stage.counts.prompt_tokens || 0,
  trained: stage.counts.train_tokens || 0,
  seconds: stage.seconds || 0,
  devices: stage.metrics.device_seconds || 0,
});
const add = (parts) => parts.reduce((sum, one) => Object.fromEntries(Object.keys(sum).map((key) => [key, sum[key] + one[key]])), of({ counts: {}, metrics: {} }));
const some = (value) => (value ? short(value) : "–");
const speed = ({ written, trained, seconds }) => (seconds > 0 && written + trained > 0 ? `${short((written + trained) / seconds)}/s` : "–");
const COLUMNS = [
  { name: "Tokens written", number: true, cell: (row) => some(row.written) },
  { name: "Tokens of prompts", number: true, cell: (row) => some(row.read) },
  { name: "Tokens trained on", number: true, cell: (row) => some(row.trained) },
  { name: "Wall time", number: true, cell: (row) => duration(row.seconds) },
  { name: "Device time", number: true, cell: (row) => (row.devices ? duration(row.devices) : "–") },
  { name: "Speed", number: true, cell: speed },
];

export default function Cost({ job, iterations, query }) {
  const stages = iterations.flatMap((one) => one.stages);
  if (!stages.length) return html`<${Card} title="Cost"><${Empty} title="Nothing has begun yet" /><//>`;
  const total = add(stages.map(of));
  const kinds = [...new Set(stages.map((one) => one.kind))];
  const byKind = kinds.map((kind) => ({ id: kind, name: words(kind), ...add(stages.filter((one) => one.kind === kind).map(of)) }));
  const current = chosen(iterations, query);
  const here = current.stages.map((stage) => ({ id: stage.kind, name: words(stage.kind), ...of(stage) }));
  const rows = iterations.map((one) => ({ id: one.id, name: one.number === 0 ? "0 (seed)" : String(one.number), ...add(one.stages.map(of)) }));
  const stage = { name: "Stage", cell: (row) => row.name };
  return html`
    <${Card} title="Altogether"><${Facts} pairs=${[
      ["Tokens written", number(total.written)], ["Tokens of prompts", number(total.read)], ["Tokens trained on", number(total.trained)],
      ["Wall time of stages", duration(total.seconds)], ["Device time of trainings", total.devices ? duration(total.devices) : "–"],
    ]} />
      <p class="note">Device time is what trainings held devices for: GPUs where there are some, else the processor. Servers of models are shared by jobs; what they hold is not a job's. Speed: tokens written and trained on, by wall time.</p>
    <//>
    <${Card} title="Wall time by stage" note="all iterations together"><${Bars} caption="Wall time by stage" told=${duration} rows=${byKind.map((row) => ({ name: row.name, value: row.seconds }))} />
      <${Table} caption="Cost by stage, all iterations together" columns=${[stage, ...COLUMNS]} rows=${byKind} /><//>
    ${iterations.length > 1 && html`
      <${Card} title=${`Stages of iteration ${current.number}`} actions=${html`<${Choice} iterations=${iterations} current=${current} job=${job} tab="cost" />`}>
        <${Table} caption=${`Cost by stage of iteration ${current.number}`} columns=${[stage, ...COLUMNS]} rows=${here} /><//>
      <${Card} title="By iteration" note="newest first"><${Table} caption="Cost by iteration" columns=${[{ ...stage, name: "Iteration" }, ...COLUMNS]} rows=${rows.toReversed()} /><//>`}
  `;
}
