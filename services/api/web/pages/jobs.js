// All jobs, newest first, kept up to date.

import { get } from "../api.js";
import { duration, percent, points, words } from "../parts/format.js";
import { useLoad } from "../parts/hooks.js";
import { VersionLink } from "../parts/iterations.js";
import { Bar, left, took } from "../parts/progress.js";
import { Card, Chip, Empty, Field, Loaded, Page, Table, useMay, When } from "../parts/ui.js";
import { go, to } from "../router.js";
import { html, useEffect, useState } from "../vendor/preact.js";

const LIVE_SECONDS = 3;
const A_PAGE = 25;
const STATES = ["running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"];
const KINDS = ["loop", "evaluation", "batch", "review", "registration"];

export default function Jobs({ query }) {
  const { state, kind, model, after } = query;
  const asked = { state, kind, model, after, limit: A_PAGE };
  const jobs = useLoad((signal) => get("/v1/jobs", asked, signal), [state, kind, model, after], LIVE_SECONDS);
  const datasets = useLoad((signal) => get("/v1/datasets", { limit: 100 }, signal));
  const names = new Map((datasets.data?.data || []).map((one) => [one.id, one.name]));
  const filtered = Boolean(state || kind || model);
  const start = useMay("write") && html`<a class="button primary" href=${to("/jobs/new")}>New job</a>`;
  return html`<${Page} title="Jobs" lead="A job turns instructions into versions of a judge, or puts one to work." actions=${start}>
    <${Card}>
      <${Filter} chosen=${{ state, kind, model }} />
      <${Loaded} of=${jobs}>${({ data, has_more: more }) => html`
        ${data.length ? html`<${List} jobs=${data} names=${names} />` : html`<${Nothing} filtered=${filtered || after} />`}
        ${(more || after) && html`<nav class="pager" aria-label="Pages of jobs">
          ${after && html`<a class="button" href=${to("/", { state, kind, model })}>Newest jobs</a>`}
          ${more && html`<a class="button" href=${to("/", { state, kind, model, after: data.at(-1).id })}>Older jobs</a>`}
        </nav>`}
      `}<//>
    <//>
  <//>`;
}

function Filter({ chosen }) {
  const [model, setModel] = useState(chosen.model || "");
  const [open, setOpen] = useState(false);
  useEffect(() => setModel(chosen.model || ""), [chosen.model]);
  const set = (change) => go("/", { ...chosen, ...change });
  const choice = (name, label, every, options) => html`<${Field} label=${label}>
    ${(given) => html`<select ...${given} value=${chosen[name] || ""} onChange=${(event) => set({ [name]: event.target.value })}>
      <option value="">${every}</option>${options.map((one) => html`<option key=${one} value=${one}>${words(one)}</option>`)}
    </select>`}
  <//>`;
  function submit(event) {
    event.preventDefault();
    set({ model: model.trim() });
  }
  const filters = Object.values(chosen).filter(Boolean).length;
  return html`<button class="menu folds" aria-expanded=${open} aria-controls="filters" onClick=${() => setOpen(!open)}>Filter${filters ? ` (${filters} set)` : ""}</button>
  <form id="filters" class=${`row filter ${open ? "open" : ""}`} role="search" aria-label="Jobs" onSubmit=${submit}>
    ${choice("state", "State", "any", STATES)}
    ${choice("kind", "Kind", "any", KINDS)}
    <${Field} label="Model">${(given) => html`<input ...${given} type="search" placeholder="its whole name" value=${model} onInput=${(event) => setModel(event.target.value)} onChange=${submit} />`}<//>
  </form>`;
}

// What a job is made of: "loop: quickstart on prompts", "evaluation of tour:2 on benchmark".
function about({ kind, recipe, dataset }, names) {
  const what = kind === "loop" ? `: ${recipe.name}` : recipe.ref ? ` of ${recipe.ref}` : "";
  return `${words(kind)}${what}${names.has(dataset) ? ` on ${names.get(dataset)}` : ""}`;
}

// Strict accuracy of the version that the gate promoted last, against the seed's.
function Result({ of }) {
  if (!of) return "–";
  const { version, strict_accuracy: now, seed_strict_accuracy: seed } = of;
  const gain = of.iteration === 0 || now === null || seed === null ? "" : points(now - seed);
  return html`${version ? html`<${VersionLink} version=${version} />` : "a deleted version"} <span class="nowrap">${percent(now)}</span>${gain && html`<br /><span class="note nowrap">${gain} to the seed</span>`}`;
}

function List({ jobs, names }) {
  const columns = [
    { name: "Job", cell: (job) => html`<a class="long" href=${to(`/jobs/${job.id}`)}>${job.model}</a><br /><span class="note long">${about(job, names)} · <code class="nowrap">${job.id}</code></span>` },
    { name: "State", cell: (job) => html`<${Chip} state=${job.state} />` },
    { name: "Progress", cell: (job) => html`<${Bar} job=${job} />` },
    { name: "Result", cell: (job) => html`<${Result} of=${job.result} />` },
    { name: "Time left", cell: (job) => html`<span class="nowrap" title=${job.progress.eta_basis}>${left(job) || (job.finished_at ? "–" : "not known yet")}</span>` },
    { name: "Started", cell: (job) => html`<span class="nowrap"><${When} at=${job.started_at} /></span>` },
    { name: "Took", number: true, cell: (job) => duration(took(job)) },
  ];
  return html`<${Table} caption="Jobs, newest first" columns=${columns} rows=${jobs} class="stacks" />`;
}

function Nothing({ filtered }) {
  if (filtered) return html`<${Empty} title="No such jobs"><p>None is like that. <a href=${to("/")}>All jobs</a></p><//>`;
  return html`<${Empty} title="No jobs yet"><p>Upload instructions under <a href=${to("/datasets")}>Datasets</a>, then start a job with them.</p><//>`;
}
