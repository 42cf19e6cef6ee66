// One dataset: what it is, its first rows, and what was made of it.

import { get } from "../api.js";
import { bytes, number, time, words } from "../parts/format.js";
import { useList, useLoad } from "../parts/hooks.js";
import { DeleteDataset, More } from "../parts/lists.js";
import { Card, Chip, Copy, Empty, Facts, Loaded, Page, Table, When, useMay } from "../parts/ui.js";
import { go, to } from "../router.js";
import { html, useState } from "../vendor/preact.js";

const CUT = 400;
const ROWS = 10;

export default function Dataset({ params }) {
  const found = useLoad((signal) => get(`/v1/datasets/${params.id}`, {}, signal), [params.id]);
  const mayWrite = useMay("write");
  const [doomed, setDoomed] = useState(null);
  const dataset = found.data;
  const start = dataset?.kind === "instructions" && mayWrite && html`<a class="button primary" href=${to("/jobs/new", { dataset: dataset.id })}>Start a job with it</a>`;
  const actions = dataset && html`${start}${mayWrite && html`<button class="danger" onClick=${() => setDoomed(dataset)}>Delete</button>`}`;
  return html`<${Page} title=${dataset?.name || params.id} crumbs=${[["Datasets", to("/datasets")]]} actions=${actions}>
    <${Loaded} of=${found}>${(one) => html`
      <${Card}><${Facts} pairs=${[
        ["Kind", one.benchmark ? `${one.kind}: ${one.benchmark}` : one.kind],
        ["Rows", number(one.rows)],
        ["Size", bytes(one.bytes)],
        ["Uploaded", time(one.created_at)],
        ["Id", html`<code>${one.id}</code> <${Copy} text=${one.id} label="Copy id" />`],
        ["SHA-256 of its rows", html`<code title=${one.sha256}>${one.sha256.slice(0, 12)}…</code> <${Copy} text=${one.sha256} label="Copy hash" />`],
      ]} /><//>
      <${Rows} id=${one.id} />
      <${Jobs} id=${one.id} />`}<//>
    <${DeleteDataset} dataset=${doomed} onClose=${() => setDoomed(null)} onDone=${() => go("/datasets")} />
  <//>`;
}

function Rows({ id }) {
  const list = useList((after) => get(`/v1/datasets/${id}/rows`, { limit: ROWS, after }), [id], (page) => page.data.at(-1)?.at);
  return html`<${Card} title="Rows" note="As they were kept, in the file's order."><${Loaded} of=${list}>${(rows) => html`
    <ol class="rows">${rows.map((one) => html`<li key=${one.at}><${Row} row=${one.row} /></li>`)}</ol>
    <${More} of=${list}>More rows<//>`}<//><//>`;
}

function Row({ row }) {
  const { id, ...fields } = row;
  return html`<p class="row-id"><code>${id}</code></p>
    <dl class="row-fields">${Object.entries(fields).map(([name, value]) => html`<div><dt>${words(name)}</dt><dd><${Value} value=${value} /></dd></div>`)}</dl>`;
}

// Long texts are cut in the view only.
function Value({ value }) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
  const [whole, setWhole] = useState(text.length <= CUT);
  return html`<span class="text">${whole ? text : `${text.slice(0, CUT)}…`}</span>
    ${!whole && html` <button class="small" onClick=${() => setWhole(true)}>All ${number(text.length)} characters</button>`}`;
}

function Jobs({ id }) {
  const list = useList((after) => get("/v1/jobs", { dataset: id, limit: 20, after }), [id]);
  const columns = [
    { name: "Job", cell: (job) => html`<a href=${to(`/jobs/${job.id}`)}>${job.id}</a>` },
    { name: "Model", cell: (job) => job.model },
    { name: "Used to", cell: (job) => (job.kind !== "loop" ? words(job.kind) : job.dataset === id ? "teach" : "check") },
    { name: "State", cell: (job) => html`<${Chip} state=${job.state} />` },
    { name: "Started", cell: (job) => html`<${When} at=${job.started_at} />` },
  ];
  return html`<${Card} title="Jobs that used it"><${Loaded} of=${list}>${(rows) =>
    rows.length ? html`<${Table} caption="Jobs that used it, newest first" columns=${columns} rows=${rows} /><${More} of=${list} />` : html`<${Empty} title="None yet" />`
  }<//><//>`;
}
