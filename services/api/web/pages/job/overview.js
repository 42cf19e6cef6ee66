// What a job is at, what its judge learned so far, and every iteration in a line.

import { duration, number, percent, points, short, words } from "../../parts/format.js";
import { chosen, Choice, purpose, setName, setsOf, VersionLink } from "../../parts/iterations.js";
import { left, took, where } from "../../parts/progress.js";
import { Card, Chip, Empty, Facts, Meter, Table, Trouble, When } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html } from "../../vendor/preact.js";
import { split } from "./data.js";
import Result from "./results.js";

const ENDED = ["succeeded", "failed", "cancelled"];

export default function Overview({ job, iterations, events, query }) {
  return html`
    ${job.error && html`<${Failure} job=${job} />`}
    ${job.data_removed_at && html`<p class="stale">The files of this job were removed <${When} at=${job.data_removed_at} />, by their age. What was counted and measured is still here.</p>`}
    <${Card} title=${ENDED.includes(job.state) ? "In short" : "Under way"}>
      ${!ENDED.includes(job.state) && html`<${Now} job=${job} />`}
      ${job.kind === "loop" && html`<${Learned} job=${job} iterations=${iterations} />`}
      <${Facts} pairs=${[
        ["Started", html`<${When} at=${job.started_at} />`],
        job.finished_at && ["Ended", html`<${When} at=${job.finished_at} />`],
        ["Took", duration(took(job))],
        job.dataset && ["Dataset", html`<a class="mono" href=${to(`/datasets/${job.dataset}`)}>${job.dataset}</a>`],
        job.labelled_dataset && ["Labelled dataset", html`<a class="mono" href=${to(`/datasets/${job.labelled_dataset}`)}>${job.labelled_dataset}</a>`],
        job.kind === "loop" && ["Recipe", job.recipe.name],
        job.kind === "loop" && ["Base model", job.recipe.base_model],
      ]} />
    <//>
    ${job.kind !== "loop" && html`<${Result} job=${job} iterations=${iterations} />`}
    <${Stages} job=${job} iterations=${iterations} events=${events} query=${query} />
    ${job.kind === "loop" && html`<${Iterations} job=${job} iterations=${iterations} />`}
  `;
}

function Failure({ job: { error, kind, dataset } }) {
  const other = kind === "loop" ? html`<a href=${to("/jobs/new", { dataset })}>A new job</a> takes them.` : "A new one takes it.";
  const whose = error.fault === "user" ? html`What it was given is at fault. A retry goes on with the same data and settings, which have to change. ${other}` : error.fault === "system" ? "The system is at fault, not what it was given." : "";
  return html`<${Trouble} error=${{ ...error, message: `${error.title}. ${error.detail || ""}` }} />${whose && html`<p class="note">${whose}</p>`}`;
}

function Now({ job }) {
  const { progress } = job;
  return html`<div class="now">
    <p class="now-words"><strong>${where(job)[0].toUpperCase() + where(job).slice(1)}</strong><span>${percent(progress.share, 0)}${left(job) && ` · ${left(job)}`}</span></p>
    <${Meter} value=${progress.share} label="Progress of the job" />
    ${progress.eta_basis && html`<p class="note">${progress.eta_seconds === null ? `When it ends is ${progress.eta_basis}.` : `Estimated as if ${progress.eta_basis}.`}</p>`}
  </div>`;
}

// One sentence for each scored set: the seed against the version that the gate promoted last.
function Learned({ job, iterations }) {
  const scored = iterations.filter((one) => one.metrics.heldout);
  if (!scored.length) return null;
  const best = scored.findLast((one) => one.metrics.promoted) || scored[0];
  const first = best.metrics.promoted
    ? html`The seed, <${VersionLink} version=${best.model_version} />, is what <code>latest</code> was last given by this job`
    : html`This job has not moved <code>latest</code>`;
  const refused = scored.filter((one) => one.number > 0 && one.metrics.promoted === false).map((one) => one.number);
  return html`<ul class="learned">
    ${best.number === 0
      ? html`<li>${first}; no trained version has passed the gate${scored.length > 1 ? "" : " so far"}.</li>`
      : html`<li>Iteration ${best.number} made <${VersionLink} version=${best.model_version} />, which the gate promoted to <code>latest</code>.</li>`}
    ${setsOf(iterations).map((set) => html`<${Gain} key=${set} set=${set} seed=${scored[0].metrics[set]} best=${best.metrics[set]} trained=${best.number > 0} />`)}
    <${Halves} job=${job} of=${split(scored[0])} />
    ${refused.length > 0 && html`<li>The gate refused ${refused.length === 1 ? `iteration ${refused[0]}` : `${refused.length} iterations (${refused.slice(0, 10).join(", ")}${refused.length > 10 ? " …" : ""})`}; Quality says why.</li>`}
  </ul>`;
}

function Halves({ job, of }) {
  if (!of) return null;
  return html`<li>There are ${number(of.pairs)} held-out pairs: ${number(of.choose)} choose the checkpoint, ${number(of.gate)} are for the gate (<a href=${to(`/jobs/${job.id}`, { tab: "data" })}>see Data</a>).</li>`;
}

function Gain({ set, seed, best, trained }) {
  if (!seed || !best || best.strict_accuracy === null) return null;
  const [low, high] = best.ci95 || [];
  const interval = low !== undefined && html` <span class="note">(95 %: ${percent(low)} to ${percent(high)})</span>`;
  const now = html`<strong>${percent(best.strict_accuracy)}</strong>${interval}`;
  const change = seed.strict_accuracy === null ? "" : `, ${points(best.strict_accuracy - seed.strict_accuracy)} against the seed's ${percent(seed.strict_accuracy)}`;
  return html`<li>On ${number(best.n)} ${setName(set)} it is right in both orders on ${now}${trained ? change : ""}.${trained && seed.strict_accuracy !== null && low !== undefined && html` <${Seen} seed=${seed.strict_accuracy} low=${low} high=${high} n=${best.n} />`}</li>`;
}

// Whether the version's 95 % interval leaves the seed's accuracy out.
function Seen({ seed, low, high, n }) {
  if (low > seed) return "It is clearly better than the seed.";
  if (high < seed) return html`<strong>It is clearly worse than the seed.</strong>`;
  return html`<strong>No difference from the seed can be seen on ${number(n)} pairs</strong>; evaluate on more (<code>selftaught evaluate</code>, or a labelled set).`;
}

// "12/60" of a training's steps, of which the chunk under way has told; else of its chunks.
function done(stage, iteration, events) {
  const step = stage.kind === "train" && stage.state === "running" && events.findLast((one) => one.type === "train.step" && one.data.iteration === iteration.number);
  return step ? [step.data.step, step.data.steps, "step"] : [stage.chunks_done, stage.chunks, ""];
}

function Chunks({ stage, iteration, events }) {
  const [n, of, what] = done(stage, iteration, events);
  if (!of) return "–";
  return html`<span class="job-bar-track"><${Meter} value=${n / of} label=${`Chunks of ${stage.kind}`} /> <span class="note">${what} ${n}/${of}</span></span>`;
}

function Stages({ job, iterations, events: { events }, query }) {
  const current = chosen(iterations, query);
  if (!current) return html`<${Card} title="Stages"><${Empty} title="Nothing has begun yet" /><//>`;
  const columns = [
    { name: "Stage", cell: (stage) => html`${words(stage.kind)} <span class="note">${purpose(stage.kind)}</span>` },
    { name: "State", cell: (stage) => html`<${Chip} state=${stage.state} />` },
    { name: "Chunks", cell: (stage) => html`<${Chunks} stage=${stage} iteration=${current} events=${events} />` },
    { name: "Took", number: true, cell: (stage) => duration(stage.seconds) },
    { name: "Counts", cell: (stage) => html`<span class="note counts">${counts(stage)}</span>` },
  ];
  const title = job.kind === "loop" ? `Stages of iteration ${current.number}` : "Stages";
  return html`<${Card} title=${title} actions=${html`<${Choice} iterations=${iterations} current=${current} job=${job} tab="overview" />`}>
    <${Table} caption="Each stage" columns=${columns} rows=${current.stages} id=${(stage) => stage.kind} />
  <//>`;
}

const TOLD = ["rows", "selected", "instructions", "pairs", "judged_pairs", "judgments_sampled", "judgments_right", "judgments_kept", "training_examples", "preference_pairs", "steps", "train_tokens", "scored_pairs", "examples", "completed", "failed", "tokens"];

function counts(stage) {
  const found = TOLD.filter((name) => stage.counts[name] !== undefined);
  return found.map((name) => `${short(stage.counts[name])} ${words(name)}`).join(" · ") || "–";
}

function Iterations({ job, iterations }) {
  const labelled = iterations.some((one) => one.metrics.labelled);
  const accuracy = (one, set) => percent(one.metrics[set]?.strict_accuracy);
  const columns = [
    { name: "Iteration", cell: (one) => html`<a href=${to(`/jobs/${job.id}`, { iteration: one.number })}>${one.number === 0 ? "0 (seed)" : one.number}</a>` },
    { name: "State", cell: (one) => html`<${Chip} state=${one.state} />` },
    { name: "Version", cell: (one) => (one.model_version ? html`<${VersionLink} version=${one.model_version} />` : "–") },
    { name: "Gate", cell: (one) => (one.metrics.promoted === undefined ? "–" : html`<${Chip} kind=${one.metrics.promoted ? "good" : "bad"}>${one.metrics.promoted ? "promoted" : "refused"}<//>`) },
    { name: "Held-out", number: true, cell: (one) => accuracy(one, "heldout") },
    labelled && { name: "Labelled", number: true, cell: (one) => accuracy(one, "labelled") },
    { name: "Kept", number: true, cell: (one) => percent(one.kept_share) },
    { name: "Examples", number: true, cell: (one) => number(one.counts.training_examples) },
    { name: "Took", number: true, cell: (one) => duration(one.seconds) },
  ].filter(Boolean);
  return html`<${Card} title="Iterations" note="newest first; strict accuracy on held-out and labelled pairs, judgments kept"><${Table} caption="Iterations, newest first" columns=${columns} rows=${iterations.toReversed()} /><//>`;
}
