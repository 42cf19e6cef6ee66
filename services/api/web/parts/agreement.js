// How well a version agrees with people: figures with their intervals, where it fails, and whether it
// falls.

import { get } from "../api.js";
import { html } from "../vendor/preact.js";
import { LineChart } from "./charts.js";
import { number, percent, share, words } from "./format.js";
import { useList, useLoad } from "./hooks.js";
import { More } from "./lists.js";
import { Sides, Text, VERDICTS } from "./texts.js";
import { Card, Chip, Empty, Facts, Loaded, Table } from "./ui.js";

const DRIFTS = { ok: ["agreement holds", "good"], watch: ["watch: agreement may fall", "warn"], alarm: ["alarm: agreement has fallen", "bad"] };

// What a model's drift comes to: [in words, colour]. Without a test there is nothing to say.
export const driftOf = (of) =>
  [of.between_versions, of.over_time].some((one) => one?.enough) ? DRIFTS[of.state] : ["too few answers to tell", "dim"];

const within = (value, ci, told) => (value === null ? "–" : `${told(value)}${ci ? ` (${told(ci[0])} to ${told(ci[1])})` : ""}`);
const agreement = (one) => within(one.agreement, one.ci95, percent);
const kappa = (one) => within(one.kappa, one.kappa_ci95, (value) => share(value, 2));

export function Summary({ model, number: version }) {
  const found = useLoad(async (signal) => {
    const at = `/v1/models/${model}`;
    const [summary, drift] = await Promise.all([get(`${at}/versions/${version}/reviews/summary`, {}, signal), get(`${at}/reviews/drift`, {}, signal)]);
    return { summary, drift };
  }, [model, version]);
  return html`<${Loaded} of=${found}>${({ summary, drift }) =>
    summary.n === 0 ? html`<${Card}><${Empty} title="Nobody has answered yet" /><//>` : html`<${Figures} of=${summary} /><${Drift} of=${drift} />`}<//>`;
}

function Figures({ of }) {
  const rows = [
    { name: "On the pairs of the queue", ...of },
    { name: "without ties", ...of.without_ties },
    { name: "Estimated for its source", ...of.source },
    ...Object.entries(of.strata).map(([name, one]) => ({ name: `drawn for ${words(name)}`, ...one })),
  ];
  const columns = [
    { name: "Which pairs", cell: (row) => row.name },
    { name: "Answered", number: true, cell: (row) => number(row.n) },
    { name: "Agreement (95 %)", number: true, cell: agreement },
    { name: "Cohen's kappa (95 %)", number: true, cell: kappa },
  ];
  return html`
    <${Card} title="Agreement with people" note="Pairs count once, by the majority of their reviewers.">
      <${Facts} pairs=${[
        ["Agreement", html`<strong>${agreement(of)}</strong>`],
        ["Cohen's kappa", kappa(of)],
        ["Pairs answered", `${number(of.n)} of ${number(of.items)}`],
        ["Reviewers", number(of.reviewers)],
        ["Skipped", number(of.skipped)],
        of.between_reviewers.items > 0 && ["Reviewers with each other", `${percent(of.between_reviewers.agreement)}, kappa ${share(of.between_reviewers.kappa, 2)}`],
      ]} />
      <${Table} caption="Agreement by kind of pair" columns=${columns} rows=${rows} id=${(row) => row.name} />
    <//>
    <${Card} title="Who said what" note="Rows: the version. Columns: people."><${Confusion} cells=${of.confusion} /><//>`;
}

function Confusion({ cells }) {
  const count = (model, person) => cells.find((one) => one.model === model && one.person === person)?.n || 0;
  const columns = [
    { name: "The version says", cell: (row) => VERDICTS[row.id] },
    ...["A", "B", "tie"].map((person) => ({ name: `people: ${VERDICTS[person]}`, number: true, cell: (row) => (row.id === person ? html`<strong>${count(row.id, person)}</strong>` : count(row.id, person)) })),
  ];
  return html`<${Table} caption="Verdicts of the version and of people" columns=${columns} rows=${["A", "B", "tie", "unparsable"].map((id) => ({ id }))} />`;
}

function Drift({ of }) {
  const [told, kind] = driftOf(of);
  const points = of.windows.length > 1 ? of.windows : of.versions;
  const windows = points === of.windows;
  const series = [{ name: "agreement", points: points.map((one, at) => ({ x: windows ? at + 1 : Number(one.version.split(":").at(-1)), y: one.agreement, low: one.ci95?.[0], high: one.ci95?.[1] })) }];
  const comparisons = [["Against the version before", of.between_versions], ["The newest 30 against those before", of.over_time]];
  return html`<${Card} title="Does it fall?" actions=${html`<${Chip} kind=${kind}>${told}<//>`}>
    ${points.length > 1 && html`<${LineChart} title=${windows ? "Agreement, 30 answers at a time (estimated for the source)" : "Agreement by version (estimated for the source)"} x=${windows ? "window" : "version"} y="agreement" series=${series} told=${(value) => percent(value, 0)} range=${[0, 1]} />`}
    <${Facts} pairs=${comparisons.map(([name, one]) => [name, one === null ? "nothing to compare with" : one.enough ? `fell by ${percent(one.fell)}, p = ${share(one.p)}` : "too few answers for a test"])} />
  <//>`;
}

// Pairs that have all their answers: nobody is to be blind to them any more.
export function Answers({ model, number: version }) {
  const list = useList((after) => get(`/v1/models/${model}/versions/${version}/reviews`, { limit: 20, after }), [model, version]);
  return html`<${Loaded} of=${list}>${(rows) => (rows.length ? html`
    ${rows.map((one) => html`<${Card} key=${one.id} title=${one.id}>
      <div role="group" class="panel" aria-label="Instruction"><h3>Instruction</h3><${Text} text=${one.instruction} /></div>
      <${Sides} sides=${[{ title: "Response A", text: one.response_a }, { title: "Response B", text: one.response_b }]} />
      <ul class="said">${one.answers.map((answer) => html`<li key=${answer.reviewer}>
        <strong>${answer.reviewer}</strong>: ${VERDICTS[answer.verdict]} · ${answer.model}: ${VERDICTS[answer.model_verdict]}
        ${" "}<${Chip} kind=${answer.agrees ? "good" : "warn"}>${answer.agrees ? "agree" : "differ"}<//>${answer.comment && html`<p class="text">“${answer.comment}”</p>`}</li>`)}</ul>
    <//>`)}
    <${More} of=${list} />` : html`<${Card}><${Empty} title="No pair has all its answers yet" /><//>`)}<//>`;
}
