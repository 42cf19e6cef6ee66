// What came of a job that is not the loop: a registration, an evaluation, a batch, a review queue.

import { download, get } from "../../api.js";
import { Bars } from "../../parts/charts.js";
import { number, percent, signed, words } from "../../parts/format.js";
import { useDeed, useLoad } from "../../parts/hooks.js";
import { VersionLink } from "../../parts/iterations.js";
import { Card, Empty, Facts, Loaded, Table, Trouble } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html } from "../../vendor/preact.js";

export default function Result(given) {
  const Shown = { registration: Registration, evaluation: Evaluation, batch: Batch, review: Review }[given.job.kind];
  return Shown ? html`<${Shown} ...${given} />` : null;
}

function Registration({ iterations }) {
  const version = iterations[0]?.model_version;
  return html`<${Card} title="Result">${version ? html`<p>The base model is registered as <${VersionLink} version=${version} />.</p>` : html`<${Empty} title="Not registered yet" />`}<//>`;
}

const figure = ({ name }, value) => (["position_bias", "bias"].includes(name) ? signed(value) : percent(value));
const FIGURES = [
  { name: "Figure", cell: (one) => words(one.name.replace("section/", "section: ").replace("subset/", "subset: ")) },
  { name: "Score", number: true, cell: (one) => figure(one, one.value) },
  { name: "95 % interval", number: true, cell: (one) => `${figure(one, one.low)} to ${figure(one, one.high)}` },
];
const SCORINGS = {
  strict: "Strict: right in both orders",
  official: "Official: by the benchmark's own rules",
};

function Evaluation({ job }) {
  const found = useLoad((signal) => get(`/v1/evaluations/${job.id}`, {}, signal), [job.id, job.state, job.progress.chunks_done]);
  return html`<${Loaded} of=${found}>${(one) => html`
    <${Card} title="What was judged"><${Facts} pairs=${[
      ["Version", html`<${VersionLink} version=${one.model} />`], ["Benchmark", one.benchmark], ["Examples judged", number(one.examples_done)],
      ["Template", one.settings.template], ["Votes", one.settings.votes],
    ]} /><//>
    ${one.scores.length === 0 && html`<${Card} title="Scores"><${Empty} title="No scores yet"><p>They are there when every example is judged.</p><//><//>`}
    ${one.scores.map((score) => html`<${Card} key=${score.scoring} title=${SCORINGS[score.scoring]} note=${Object.entries(score.counts).map(([name, count]) => `${number(count)} ${words(name)}`).join(" · ")}>
      <${Table} caption=${`Figures, ${score.scoring}`} columns=${FIGURES} rows=${score.figures} id=${(figure) => figure.name} />
    <//>`)}
  `}<//>`;
}

function Batch({ job }) {
  const found = useLoad((signal) => get(`/v1/judge/batches/${job.id}`, {}, signal), [job.id, job.state, job.progress.chunks_done]);
  const [save, { busy, error }] = useDeed(() => download(`/v1/judge/batches/${job.id}/results`, `${job.id}.jsonl`));
  const actions = !job.data_removed_at && html`<button class="small" disabled=${busy} onClick=${save}>Download the results</button>`;
  return html`<${Loaded} of=${found}>${(one) => html`<${Card} title="Verdicts" actions=${actions}>
    <${Trouble} error=${error} />
    <${Facts} pairs=${[
      ["Version", html`<${VersionLink} version=${one.model} />`], ["Pairs", number(one.request_counts.total)],
      ["Judged", number(one.request_counts.completed)], ["Failed", number(one.request_counts.failed)],
      ["Votes", one.votes], ["Orders", one.both_orders ? "both" : "as given"], ["Tokens", number(one.usage.prompt_tokens + one.usage.completion_tokens)],
    ]} />
    <${Bars} caption="Verdicts" told=${number} rows=${Object.entries(one.verdicts).map(([name, value]) => ({ name: name.length === 1 ? `Response ${name} is better` : name, value, kind: name === "unparsable" ? "lost" : "" }))} />
  <//>`}<//>`;
}

function Review({ job, iterations }) {
  const ref = iterations[0]?.model_version;
  const items = iterations[0]?.counts.items ?? iterations[0]?.counts.sampled;
  return html`<${Card} title="A queue for people" note="the judgments of a version, to be checked without seeing its verdicts">
    <${Facts} pairs=${[["Model", job.model], ref && ["Version", html`<${VersionLink} version=${ref} />`], ["Items wanted", number(job.recipe.size)], items !== undefined && ["Items", number(items)], ["Drawn from", job.recipe.source]]} />
    <p><a class="button" href=${to("/reviews")}>All review queues</a></p>
  <//>`;
}
