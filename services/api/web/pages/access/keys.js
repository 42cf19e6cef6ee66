// Keys of this project: what callers send, what each may do. A secret is shown once.

import { post, remove } from "../../api.js";
import { Ask, Secret } from "../../parts/dialogs.js";
import { time } from "../../parts/format.js";
import { Listed, useMore } from "../../parts/more.js";
import { Card, Chip, Field, Page, Table, When, tell, useCaller } from "../../parts/ui.js";
import { html, useState } from "../../vendor/preact.js";
import { KeyForm, emptyKey, keyBody } from "./keyform.js";

const SOON_DAYS = 14;

export default function Keys() {
  const { project } = useCaller();
  const keys = useMore("/v1/keys");
  const [asked, setAsked] = useState({ what: null, of: null });
  const [made, setMade] = useState(null);
  const ask = (what, of = null) => setAsked({ what, of });
  const close = () => setAsked((old) => ({ ...old, what: null }));
  function done(key) {
    setMade(key);
    keys.reload();
  }
  return html`<${Page} title="Keys" lead=${`What callers of project ${project} send. Scopes do not imply each other.`} actions=${html`<button class="primary" onClick=${() => ask("create")}>Create a key</button>`}>
    <${Card}><${Listed} of=${keys} empty="No keys yet.">${(rows) => html`<${List} keys=${rows} ask=${ask} />`}<//><//>
    <${Create} open=${asked.what === "create"} onClose=${close} onDone=${done} />
    <${Rotate} open=${asked.what === "rotate"} of=${asked.of} onClose=${close} onDone=${done} />
    <${Revoke} open=${asked.what === "revoke"} of=${asked.of} onClose=${close} onDone=${keys.reload} />
    <${Secret} made=${made} title=${`The secret of ${made?.name}`} onClose=${() => setMade(null)}>
      <p class="note">It is sent as <code>Authorization: Bearer …</code>; programs here read it from <code>SELFTAUGHT_API_KEY</code>.</p><//>
  <//>`;
}

// good, expired or revoked; and soon over.
function state(key) {
  if (key.revoked_at) return ["revoked", "dim"];
  const days = key.expires_at ? (new Date(key.expires_at) - Date.now()) / 86_400_000 : Infinity;
  if (days <= 0) return ["expired", "dim"];
  return days < SOON_DAYS ? ["expires soon", "warn"] : ["good", "good"];
}

function List({ keys, ask }) {
  const columns = [
    { name: "Name", cell: (one) => one.name },
    { name: "Begins with", cell: (one) => html`<code>${one.prefix}…</code>` },
    { name: "May", cell: (one) => html`<span class="scopes">${one.scopes.map((scope) => html`<${Chip} key=${scope} kind=${scope === "admin" ? "warn" : "dim"}>${scope}<//>`)}</span>` },
    { name: "State", cell: (one) => html`<${Chip} kind=${state(one)[1]}>${state(one)[0]}<//>` },
    { name: "Expires", cell: (one) => html`<span class="nowrap">${one.expires_at ? time(one.expires_at) : "never"}</span>` },
    { name: "Last used", cell: (one) => html`<span class="nowrap">${one.last_used_at ? html`<${When} at=${one.last_used_at} />` : "never"}</span>` },
    { name: html`<span class="visually-hidden">Do</span>`, cell: (one) => !one.revoked_at && html`<span class="actions">
      <button class="small" aria-label=${`Rotate ${one.name}`} onClick=${() => ask("rotate", one)}>Rotate…</button>
      <button class="small danger" aria-label=${`Revoke ${one.name}`} onClick=${() => ask("revoke", one)}>Revoke…</button></span>` },
  ];
  return html`<${Table} caption="Keys, oldest first" columns=${columns} rows=${keys} />`;
}

function Create({ open, onClose, onDone }) {
  const [form, setForm] = useState(emptyKey());
  return html`<${Ask} open=${open} title="Create a key" label="Create" disabled=${!form.scopes.length} onClose=${onClose}
    deed=${() => post("/v1/keys", keyBody(form))} onDone=${(made) => { setForm(emptyKey()); onDone(made); }}>
    <${KeyForm} form=${form} onChange=${setForm} />
  <//>`;
}

const GRACES = [[0, "at once"], [3600, "in an hour"], [86_400, "in a day"], [604_800, "in a week"]];

function Rotate({ open, of, onClose, onDone }) {
  const [grace, setGrace] = useState(3600);
  return html`<${Ask} open=${open} title=${`Rotate ${of?.name}`} label="Give it a new secret" onClose=${onClose}
    deed=${() => post(`/v1/keys/${of.id}/rotate`, { grace_seconds: grace })} onDone=${onDone}>
    <p>It keeps its name and scopes. The present secret stays good for a while, so that its holders can change over.</p>
    <${Field} label="The present secret ends">${(given) => html`<select ...${given} value=${grace} onChange=${(event) => setGrace(Number(event.target.value))}>
      ${GRACES.map(([seconds, name]) => html`<option key=${seconds} value=${seconds}>${name}</option>`)}</select>`}<//>
  <//>`;
}

function Revoke({ open, of, onClose, onDone }) {
  const own = useCaller().key?.id === of?.id;
  const [typed, setTyped] = useState("");
  return html`<${Ask} open=${open} title=${`Revoke ${of?.name}`} label="Revoke it for good" danger disabled=${typed !== of?.name}
    onClose=${() => { setTyped(""); onClose(); }} deed=${() => remove(`/v1/keys/${of.id}`)} onDone=${() => { tell(`${of.name} is revoked.`); onDone(); }}>
    <p>Within two seconds no gateway takes it any more. Its record stays, and its name is never given to another.</p>
    ${own && html`<p class="stale"><strong>This is the key that you are signed in with.</strong></p>`}
    <${Field} label=${html`Type <strong>${of?.name}</strong> to be sure`}>${(given) => html`<input ...${given} autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} />`}<//>
  <//>`;
}
