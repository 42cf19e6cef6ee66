// The log of verdicts: which version answered what, when.

import { duration, exact, share } from "../../parts/format.js";
import { Listed, useMore } from "../../parts/more.js";
import { Card, Chip, Field, Page, Table } from "../../parts/ui.js";
import { go, to } from "../../router.js";
import { html, useState } from "../../vendor/preact.js";
import { Ref } from "../models/registry.js";

const FIELDS = [["model", "Model", ""], ["version", "Version", "Its number."], ["verdict", "Verdict", "A, B, tie or unparsable."], ["request_id", "Request", "The answer's X-Request-ID."], ["content_sha256", "Question", "Its content_sha256."]];

const OFF = html`<p>The log is off unless the services are started with <code>SELFTAUGHT_VERDICT_LOG=hashes</code>, or <code>texts</code> to keep what was asked, too (<code>docs/traffic.md</code>, “The verdict log”).</p>`;

export default function Verdicts({ query }) {
  const log = useMore("/v1/verdicts", query);
  const filtered = Object.keys(query).length > 0;
  return html`<${Page} title="Verdict log" lead="Which version answered each question of /judge.">
    <${Filters} key=${JSON.stringify(query)} query=${query} />
    <${Card}>
      <${Listed} of=${log} empty=${filtered ? "Nothing like that." : "No verdict is logged"} why=${!filtered && OFF}>${(rows) => html`<${List} rows=${rows} />`}<//>
    <//>
  <//>`;
}

function Filters({ query }) {
  const [form, setForm] = useState(query);
  const [id, setId] = useState("");
  function submit(event) {
    event.preventDefault();
    if (id.trim()) go(`/verdicts/${encodeURIComponent(id.trim())}`);
    else go("/verdicts", form);
  }
  return html`<form class="card" onSubmit=${submit} role="search" aria-label="Filter the verdict log">
    <div class="row filters">
      <${Field} label="One verdict" hint="The id of an answer.">${(given) => html`<input ...${given} placeholder="vdt_…" value=${id} onInput=${(event) => setId(event.target.value)} />`}<//>
      ${FIELDS.map(([field, name, hint]) => html`<${Field} key=${field} label=${name} hint=${hint}>${(given) => html`<input ...${given} value=${form[field] || ""} onInput=${(event) => setForm({ ...form, [field]: event.target.value })} />`}<//>`)}
    </div>
    <div class="actions"><button class="primary">Search</button><button type="button" onClick=${() => go("/verdicts")}>Everything</button></div>
  </form>`;
}

const KINDS = { A: "busy", B: "warn", tie: "dim", unparsable: "bad" };
export const VerdictChip = ({ of }) => html`<${Chip} kind=${KINDS[of]}>${of}<//>`;

function List({ rows }) {
  const columns = [
    { name: "When", cell: (one) => html`<a class="nowrap" href=${to(`/verdicts/${one.id}`)}>${exact(one.created_at)}</a>` },
    { name: "Version", cell: (one) => html`<${Ref} of=${one.model} />${one.canary && html` <${Chip} kind="busy">canary<//>`}` },
    { name: "Came by", cell: (one) => one.alias || html`<span class="note">the exact version</span>` },
    { name: "Verdict", cell: (one) => html`<${VerdictChip} of=${one.verdict} />` },
    { name: "Confidence", number: true, cell: (one) => share(one.confidence, 2) },
    { name: "Orders", cell: (one) => (one.orders_agree === null ? "one" : one.orders_agree ? "agree" : "disagree") },
    { name: "Took", number: true, cell: (one) => (one.cached ? html`<span class="note">cached</span>` : duration(one.latency.total)) },
  ];
  return html`<${Table} caption="Verdicts, newest first" columns=${columns} rows=${rows} />`;
}
