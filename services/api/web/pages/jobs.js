// All jobs, newest first, kept up to date.

import { get } from "../api.js";
import { duration, words } from "../parts/format.js";
import { useLoad } from "../parts/hooks.js";
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
  const filtered = Boolean(state || kind || model);
  const start = useMay("write") && html`<a class="button primary" href=${to("/jobs/new")}>New job</a>`;
  return html`<${Page} title="Jobs" lead="A job turns instructions into versions of a judge, or puts one to work." actions=${start}>
    <${Card}>
      <${Filter} chosen=${{ state, kind, model }} />
      <${Loaded} of=${jobs}>${({ data, has_more: more }) => html`
        ${data.length ? html`<${List} jobs=${data} />` : html`<${Nothing} filtered=${filtered || after} />`}
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
  return html`<form class="row filter" role="search" aria-label="Jobs" onSubmit=${submit}>
    ${choice("state", "State", "any", STATES)}
    ${choice("kind", "Kind", "any", KINDS)}
    <${Field} label="Model">${(given) => html`<input ...${given} type="search" placeholder="its whole name" value=${model} onInput=${(event) => setModel(event.target.value)} onChange=${submit} />`}<//>
  </form>`;
}

function List({ jobs }) {
  const columns = [
    { name: "Job", cell: (job) => html`<a class="long" href=${to(`/jobs/${job.id}`)}>${job.model}</a><br /><span class="note">${words(job.kind)} · <code>${job.id}</code></span>` },
    { name: "State", cell: (job) => html`<${Chip} state=${job.state} />` },
    { name: "Progress", cell: (job) => html`<${Bar} job=${job} />` },
    { name: "Time left", cell: (job) => html`<span class="nowrap" title=${job.progress.eta_basis}>${left(job) || (job.finished_at ? "–" : "not known yet")}</span>` },
    { name: "Started", cell: (job) => html`<span class="nowrap"><${When} at=${job.started_at} /></span>` },
    { name: "Took", number: true, cell: (job) => duration(took(job)) },
  ];
  return html`<${Table} caption="Jobs, newest first" columns=${columns} rows=${jobs} />`;
}

function Nothing({ filtered }) {
  if (filtered) return html`<${Empty} title="No such jobs"><p>None is like that. <a href=${to("/")}>All jobs</a></p><//>`;
  return html`<${Empty} title="No jobs yet"><p>Upload instructions under <a href=${to("/datasets")}>Datasets</a>, then start a job with them.</p><//>`;
}
