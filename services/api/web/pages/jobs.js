// All jobs, newest first, kept up to date.

import { get } from "../api.js";
import { duration, words } from "../parts/format.js";
import { useLoad } from "../parts/hooks.js";
import { Card, Chip, Empty, Loaded, Page, Table, When } from "../parts/ui.js";
import { to } from "../router.js";
import { html } from "../vendor/preact.js";

const LIVE_SECONDS = 3;

export default function Jobs() {
  const jobs = useLoad((signal) => get("/v1/jobs", { limit: 50 }, signal), [], LIVE_SECONDS);
  return html`<${Page} title="Jobs" lead="What turns instructions into versions of a judge.">
    <${Card}><${Loaded} of=${jobs}>${({ data }) => (data.length ? html`<${List} jobs=${data} />` : html`<${Empty} title="No jobs yet"><p>Upload a dataset, then post a job.</p><//>`)}<//><//>
  <//>`;
}

function List({ jobs }) {
  const columns = [
    { name: "Job", cell: (job) => html`<a href=${to(`/jobs/${job.id}`)}>${job.id}</a>` },
    { name: "Model", cell: (job) => job.model },
    { name: "Kind", cell: (job) => words(job.kind) },
    { name: "State", cell: (job) => html`<${Chip} state=${job.state} />` },
    { name: "Iterations", number: true, cell: (job) => (job.kind === "loop" ? `${job.iterations_done} of ${job.recipe.iterations}` : "–") },
    { name: "Started", cell: (job) => html`<${When} at=${job.started_at} />` },
    { name: "Took", number: true, cell: (job) => took(job) },
  ];
  return html`<${Table} caption="Jobs, newest first" columns=${columns} rows=${jobs} />`;
}

function took(job) {
  if (!job.started_at) return "–";
  const end = job.finished_at ? new Date(job.finished_at) : new Date();
  return duration((end - new Date(job.started_at)) / 1000);
}
