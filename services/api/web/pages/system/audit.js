// Who did what: every request that changes something, refused ones too.

import { exact } from "../../parts/format.js";
import { Listed, useMore } from "../../parts/more.js";
import { Card, Chip, Field, Page, Table, useCaller } from "../../parts/ui.js";
import { go } from "../../router.js";
import { html, useState } from "../../vendor/preact.js";

const METHODS = ["", "POST", "PUT", "PATCH", "DELETE", "CLI"];
const day = (text, plus = 0) => (text ? new Date(Date.parse(text) + plus).toISOString() : undefined);
const DAY = 86_400_000;

// The filters stand in the address, so that what was found can be sent to somebody.
export default function AuditLog({ query }) {
  const { operator, project } = useCaller();
  const asked = { key: query.key, method: query.method, route: query.route, request_id: query.request, since: day(query.since), until: day(query.until, DAY), project: operator ? query.project : undefined };
  const log = useMore("/v1/audit", asked);
  return html`<${Page} title="Audit log" lead=${`Who changed what in ${query.project === "*" ? "all projects" : `project ${query.project || project}`}. What was sent is not kept; questions to the judge are not in it; what a job's gate moves is in the alias's history, under Models.`}>
    <${Filters} key=${JSON.stringify(query)} query=${query} operator=${operator} />
    <${Card}><${Listed} of=${log} empty="Nothing like that.">${(rows) => html`<${List} rows=${rows} wide=${query.project === "*"} />`}<//><//>
  <//>`;
}

function Filters({ query, operator }) {
  const [form, setForm] = useState(query);
  const set = (field) => (event) => setForm({ ...form, [field]: event.target.value });
  const input = (field, more = {}) => (given) => html`<input ...${given} ...${more} value=${form[field] || ""} onInput=${set(field)} />`;
  function submit(event) {
    event.preventDefault();
    go("/audit", form);
  }
  return html`<form class="card" onSubmit=${submit} role="search" aria-label="Filter the audit log">
    <div class="row filters">
      <${Field} label="Who" hint="A key's name or id.">${input("key")}<//>
      <${Field} label="Method">${(given) => html`<select ...${given} value=${form.method || ""} onChange=${set("method")}>${METHODS.map((one) => html`<option key=${one} value=${one}>${one || "any"}</option>`)}</select>`}<//>
      <${Field} label="Route" hint="Such as /v1/jobs.">${input("route")}<//>
      <${Field} label="Request" hint="Its id.">${input("request")}<//>
      <${Field} label="From the day">${input("since", { type: "date" })}<//>
      <${Field} label="To the day">${input("until", { type: "date" })}<//>
      ${operator && html`<${Field} label="Project" hint="* is all.">${input("project")}<//>`}
    </div>
    <div class="actions"><button class="primary">Search</button><button type="button" onClick=${() => go("/audit")}>Clear</button></div>
  </form>`;
}

const kind = (status) => (status === null ? "busy" : status < 300 ? "good" : status < 500 ? "warn" : "bad");

function List({ rows, wide }) {
  const columns = [
    { name: "When", cell: (one) => html`<span class="nowrap">${exact(one.at)}</span>` },
    { name: "Who", cell: (one) => one.key_name || html`<span class="note">no key</span>` },
    ...(wide ? [{ name: "Project", cell: (one) => one.project }] : []),
    { name: "What", cell: (one) => html`<span class="what"><strong>${one.method}</strong> <code class="path">${one.method === "CLI" ? `${one.route} ${one.path}` : one.path}</code>${one.target && one.target !== one.path && html`<br /><span class="note">made <code class="path">${one.target}</code></span>`}</span>` },
    { name: "Answer", cell: (one) => html`<${Chip} kind=${kind(one.status)}>${one.status ?? "under way"}<//>` },
    { name: "From", cell: (one) => html`<span class="note">${one.client ?? "–"}</span>` },
    { name: "Request", cell: (one) => html`<code class="note nowrap" title=${one.request_id}>${one.request_id ? `…${one.request_id.slice(-8)}` : "–"}</code>` },
  ];
  return html`<${Table} caption="Changes, newest first" columns=${columns} rows=${rows} />`;
}
