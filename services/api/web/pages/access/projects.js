// Projects, for the operator: tenants that see nothing of each other, and what each may use.

import { patch, post } from "../../api.js";
import { Ask, Secret } from "../../parts/dialogs.js";
import { bytes, duration, number, time } from "../../parts/format.js";
import { Listed, useMore } from "../../parts/more.js";
import { Card, Field, Page, Table, tell, useCaller } from "../../parts/ui.js";
import { html, useState } from "../../vendor/preact.js";
import { KeyForm, emptyKey, keyBody } from "./keyform.js";
import { Usage } from "./usage.js";

// [field, column, label, hint, how it is told]
const LIMITS = [
  ["requests_per_minute", "Requests/min", "Requests in a minute", "of all its keys together", number],
  ["tokens_per_day", "Tokens/day", "Tokens in a day", "that models read and write for it", number],
  ["gpu_seconds_per_day", "GPU/day", "GPU seconds in a day", "that its trainings hold devices", duration],
  ["stored_bytes", "Stored", "Stored bytes", "of its datasets, batches and results", bytes],
];

export default function Projects() {
  const caller = useCaller();
  const projects = useMore("/v1/projects");
  const [asked, setAsked] = useState({ what: null, of: null });
  const [made, setMade] = useState(null);
  const ask = (what, of = null) => setAsked({ what, of });
  const close = () => setAsked((old) => ({ ...old, what: null }));
  return html`<${Page} title="Projects" lead="Tenants: datasets, jobs, models and keys of one are not there for the others." actions=${html`<button class="primary" onClick=${() => ask("create")}>Create a project</button>`}>
    <${Card} title=${`Usage of ${caller.project}`} note="your own project"><${Usage} /><//>
    <${Card} title="All projects"><${Listed} of=${projects} empty="No projects.">${(rows) => html`<${List} projects=${rows} ask=${ask} />`}<//><//>
    <${Create} open=${asked.what === "create"} onClose=${close} onDone=${(project) => { projects.reload(); ask("key", project); }} />
    <${Limit} key=${`${asked.what} ${asked.of?.id}`} open=${asked.what === "limits"} of=${asked.of} onClose=${close} onDone=${projects.reload} />
    <${FirstKey} open=${asked.what === "key"} of=${asked.of} onClose=${close} onDone=${setMade} />
    <${Secret} made=${made} title=${`The secret of ${made?.name}`} onClose=${() => setMade(null)}><p class="note">Whoever has it signs in here with it, and makes the project's other keys.</p><//>
  <//>`;
}

function List({ projects, ask }) {
  const columns = [
    { name: "Project", cell: (one) => one.id },
    { name: "Made", cell: (one) => html`<span class="nowrap">${time(one.created_at)}</span>` },
    ...LIMITS.map(([field, name, , , told]) => ({ name, number: true, cell: (one) => (one.limits[field] === null ? html`<span class="note">no limit</span>` : told(one.limits[field])) })),
    { name: html`<span class="visually-hidden">Do</span>`, cell: (one) => html`<span class="actions">
      <button class="small" aria-label=${`Limits of ${one.id}`} onClick=${() => ask("limits", one)}>Limits…</button>
      <button class="small" aria-label=${`A key of ${one.id}`} onClick=${() => ask("key", one)}>Key…</button></span>` },
  ];
  return html`<${Table} caption="Projects by name" columns=${columns} rows=${projects} />`;
}

function Create({ open, onClose, onDone }) {
  const [id, setId] = useState("");
  return html`<${Ask} open=${open} title="Create a project" label="Create" onClose=${onClose} deed=${() => post("/v1/projects", { id })} onDone=${(made) => { setId(""); tell(`Project ${made.id} is there; make its first key.`); onDone(made); }}>
    <${Field} label="Name" hint="For good: it is never given to another. Up to 64 of a-z 0-9 . _ -">${(given) => html`<input ...${given} required autocomplete="off" pattern="[a-z0-9][a-z0-9._\\-]*" maxlength="64" placeholder="support" value=${id} onInput=${(event) => setId(event.target.value)} />`}<//>
  <//>`;
}

function Limit({ open, of, onClose, onDone }) {
  const [form, setForm] = useState(() => Object.fromEntries(LIMITS.map(([field]) => [field, of?.limits[field] ?? ""])));
  const limits = () => Object.fromEntries(LIMITS.map(([field]) => [field, form[field] === "" ? null : Number(form[field])]));
  return html`<${Ask} open=${open} title=${`Limits of ${of?.id}`} label="Set them" onClose=${onClose} deed=${() => patch(`/v1/projects/${of.id}`, { limits: limits() })} onDone=${() => { tell(`${of.id} has new limits; gateways go by them within two seconds.`); onDone(); }}>
    <p class="note">Empty: no limit. What is already used counts against a new one; work that was let in goes on.</p>
    ${LIMITS.map(([field, , name, told]) => html`<${Field} key=${field} label=${name} hint=${told}>${(given) => html`<input ...${given} type="number" min=${field === "requests_per_minute" ? 1 : 0} step="1" value=${form[field]} onInput=${(event) => setForm({ ...form, [field]: event.target.value })} />`}<//>`)}
  <//>`;
}

function FirstKey({ open, of, onClose, onDone }) {
  const [form, setForm] = useState(emptyKey(["read", "write", "judge", "promote", "admin"]));
  return html`<${Ask} open=${open} title=${`A key of ${of?.id}`} label="Create" disabled=${!form.scopes.length} onClose=${onClose} deed=${() => post(`/v1/projects/${of.id}/keys`, keyBody(form))} onDone=${onDone}>
    <${KeyForm} form=${form} onChange=${setForm} />
  <//>`;
}
