// From uploaded rows to training examples: what is left after each step, what was dropped, and why.

import { download, get } from "../../api.js";
import { Bars } from "../../parts/charts.js";
import { bytes, number, percent, words } from "../../parts/format.js";
import { useDeed, useLoad } from "../../parts/hooks.js";
import { chosen, Choice } from "../../parts/iterations.js";
import { dropped, reason } from "../../parts/reasons.js";
import { Card, Empty, Loaded, Table, Trouble } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html } from "../../vendor/preact.js";

const stage = (iteration, kind) => iteration?.stages.find((one) => one.kind === kind);
const lost = (counts) => dropped(counts).map(([name, value]) => ({ name: `– ${reason(name)}`, value, kind: "lost" }));

export default function Data({ job, iterations, query }) {
  const first = iterations.find((one) => one.number === 0);
  const worked = iterations.filter((one) => one.number > 0);
  const current = chosen(worked, query);
  const pairs = current && html`<a class="button small" href=${to(`/jobs/${job.id}/pairs`, { iteration: current.number })}>Look at the pairs</a>`;
  return html`
    <${Selection} first=${first} />
    <${Card} title=${current ? `Iteration ${current.number}: from instructions to training examples` : "From instructions to training examples"} actions=${current && html`${pairs}<${Choice} iterations=${worked} current=${current} job=${job} tab="data" />`}>
      ${current ? html`<${Funnel} iteration=${current} recipe=${job.recipe} />` : html`<${Empty} title="No iteration has begun"><p>Iteration 1 makes the first pairs.</p><//>`}
    <//>
    ${worked.length > 1 && html`<${Compared} iterations=${worked} />`}
    <${Files} job=${job} iterations=${iterations} />
  `;
}

// Every second held-out pair chooses checkpoints, if the gate has scored the other half only.
export function split(first) {
  const pairs = stage(first, "pair")?.counts.pairs;
  const gate = first?.metrics.heldout?.n;
  return gate && gate === Math.floor(pairs / 2) ? { pairs, gate, choose: pairs - gate } : null;
}

function halves(first) {
  const found = split(first);
  return found ? [{ name: "of them, choose the checkpoint", value: found.choose }, { name: "of them, for the gate", value: found.gate }] : [];
}

function Selection({ first }) {
  const select = stage(first, "select");
  if (!select?.counts.rows) return html`<${Card} title="Uploaded rows"><${Empty} title="No row has been read yet" /><//>`;
  const rows = [{ name: "Uploaded rows", value: select.counts.rows }, ...lost(select.counts), { name: "Selected", value: select.counts.selected, kind: "kept" }];
  for (const kind of ["label", "choose"]) {
    const found = stage(first, kind);
    if (found) rows.push(...lost(found.counts));
    if (found?.counts.chosen !== undefined) rows.push({ name: "Chosen by quotas", value: found.counts.chosen, kind: "kept" });
  }
  const heldout = stage(first, "pair");
  if (heldout?.counts.instructions) {
    rows.push({ name: "Set aside, held out", value: heldout.counts.instructions }, ...lost(heldout.counts), { name: "Held-out pairs", value: heldout.counts.pairs, kind: "kept" }, ...halves(first));
  }
  return html`<${Card} title="Uploaded rows" note="once, in iteration 0"><${Bars} caption="Uploaded rows" told=${number} rows=${rows} /><//>`;
}

function Funnel({ iteration, recipe }) {
  const pair = stage(iteration, "pair");
  const judge = stage(iteration, "judge");
  const curate = stage(iteration, "curate");
  const train = iteration.metrics.train;
  const parts = [];
  if (pair?.counts.instructions) {
    parts.push(["Instructions become pairs", "A pair is an answer and a worse one, which answers a modified instruction.", [
      { name: "Instructions", value: pair.counts.instructions }, ...lost(pair.counts), { name: "Pairs", value: pair.counts.pairs, kind: "kept" },
    ]]);
  }
  if (!pair && iteration.number > 1) parts.push(["Instructions become pairs", "The pairs of iteration 1 serve every iteration (pair.fresh is false).", []]);
  if (judge?.counts.judgments_sampled) {
    const { judgments_sampled: sampled, judgments_parsed: parsed = 0, judgments_wrong: wrong = 0, judgments_tie: tie = 0, judgments_right: right = 0 } = judge.counts;
    const of = (value) => percent(value / sampled);
    parts.push(["The judge is sampled", `Up to ${recipe.judge.samples} judgments for each pair in each order; only those that name the better response are kept.`, [
      { name: "Judgments", value: sampled },
      ...[["no verdict could be read", sampled - parsed], ["the verdict is a tie", tie], ["the verdict is wrong", wrong]].filter(([, value]) => value > 0).map(([name, value]) => ({ name: `– ${name}`, value, note: of(value), kind: "lost" })),
      { name: "With the right verdict", value: right, note: of(right), kind: "kept" },
    ]]);
  }
  if (curate?.counts.inputs) {
    const { inputs, training_examples: examples = 0, kept_a: a = 0, kept_b: b = 0, preference_pairs: preferences } = curate.counts;
    const named = Object.entries(curate.counts).filter(([name]) => !/dropped_(none_wrong|preference_balance)/.test(name));
    parts.push(["Right judgments become examples", `An input is a pair in one order; ${recipe.curate.per_input === 1 ? "one right judgment of each" : `up to ${recipe.curate.per_input} right judgments of each`} is drawn at random.`, [
      { name: "Inputs", value: inputs }, ...lost(Object.fromEntries(named)),
      { name: "Training examples", value: examples, note: `A ${number(a)} · B ${number(b)}`, kind: "kept" },
      ...(preferences === undefined ? [] : [{ name: "Preference pairs", value: preferences, kind: "kept" }]),
    ]]);
  }
  if (train?.examples !== undefined) {
    parts.push(["Examples are trained on", `${train.epochs?.toFixed(2)} passes in ${number(train.steps)} steps.`, [
      ...(train.examples_too_long ? [{ name: "– too long for the model", value: train.examples_too_long, kind: "lost" }] : []),
      { name: "Trained on", value: train.examples, kind: "kept" },
    ]]);
  }
  if (!parts.length) return html`<${Empty} title="Nothing is counted yet" />`;
  return html`<ol class="funnel">${parts.map(([title, note, rows]) => html`<li key=${title}><h3>${title}</h3><p class="note">${note}</p>${rows.length > 0 && html`<${Bars} caption=${title} told=${number} rows=${rows} />`}</li>`)}</ol>`;
}

function Compared({ iterations }) {
  const columns = [
    { name: "Iteration", cell: (one) => one.number },
    ...[["Instructions", "instructions"], ["Pairs", "pairs"], ["Judgments", "judgments_sampled"]].map(([name, count]) => ({ name, number: true, cell: (one) => number(one.counts[count]) })),
    { name: "Right", number: true, cell: (one) => percent(one.kept_share) },
    { name: "Examples", number: true, cell: (one) => number(one.counts.training_examples) },
    { name: "Tokens of a judgment", number: true, cell: (one) => one.metrics.curate?.mean_completion_tokens?.all?.toFixed(1) ?? "–" },
    { name: "of a kept one", number: true, cell: (one) => one.metrics.curate?.mean_completion_tokens?.kept?.toFixed(1) ?? "–" },
  ];
  return html`<${Card} title="Iterations side by side" note="newest first"><${Table} caption="Counts of every iteration" columns=${columns} rows=${iterations.toReversed()} /><//>`;
}

const KINDS = {
  select: "selected instructions", select_dropped: "rows that were left out, with reasons", label: "labelled instructions", label_dropped: "unlabelled rows", choose: "chosen instructions",
  choose_dropped: "rows that were not chosen, with reasons", pair: "pairs", pair_dropped: "instructions without a pair, with reasons", judge: "judgments", curate: "training examples (TRL: SFT)",
  preferences: "preference pairs (TRL: DPO)", fates: "what became of every judgment of every pair",
};

function Files({ job, iterations }) {
  const found = useLoad((signal) => get(`/v1/jobs/${job.id}/data`, {}, signal), [job.id, iterations.reduce((sum, one) => sum + one.stages.filter((stage) => stage.state === "succeeded").length, 0)]);
  const [save, { busy, error }] = useDeed((file, form) => download(`${file.url}?format=${form}`, `${job.id}-${file.iteration}-${file.name}.${form}`));
  if (job.data_removed_at) return html`<${Card} title="Files"><${Empty} title="The files of this job were removed"><p>Operators set how long files are kept.</p><//><//>`;
  const link = (file, form, name) => html`<button class="small" disabled=${busy} aria-label=${`${file.name} of iteration ${file.iteration} as ${name}`} onClick=${() => save(file, form)}>${name}</button>`;
  const columns = [
    { name: "Iteration", cell: (file) => file.iteration },
    { name: "File", cell: (file) => html`<code>${file.name}</code>` },
    { name: "What is in it", cell: (file) => KINDS[file.name] || words(file.kind) },
    { name: "Rows", number: true, cell: (file) => number(file.rows) },
    { name: "Size", number: true, cell: (file) => bytes(file.bytes) },
    { name: "Download", cell: (file) => (file.rows > 0 ? html`<span class="actions">${link(file, "jsonl", "JSONL")}${link(file, "parquet", "Parquet")}</span>` : "–") },
  ];
  return html`<${Card} title="Files" note="what every stage published; they load in Hugging Face datasets">
    <${Trouble} error=${error} />
    <${Loaded} of=${found}>${({ data }) => (data.length ? html`<${Table} caption="Every file, newest first" columns=${columns} rows=${data.toReversed()} id=${(file) => `${file.iteration} ${file.name}`} />` : html`<${Empty} title="No files yet" />`)}<//>
  <//>`;
}
