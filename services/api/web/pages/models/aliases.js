// What each alias names and has named; moves and rollbacks, by the revision that was seen.

import { post, put } from "../../api.js";
import { Ask } from "../../parts/dialogs.js";
import { Card, Empty, Field, Table, Trouble, When, tell, useMay } from "../../parts/ui.js";
import { html, useState } from "../../vendor/preact.js";
import { Aliases as Flags, Findings, Ref, Why, api, before, latestFirst, split } from "./registry.js";

// onChange: something moved, or turned out to have moved.
export function AliasCards({ name, aliases, versions, onChange }) {
  const [asked, setAsked] = useState({ what: null, alias: null });
  const may = useMay("promote");
  const ask = (what, alias) => setAsked({ what, alias });
  const close = () => setAsked((old) => ({ ...old, what: null }));
  return html`
    ${may && html`<div class="actions"><button onClick=${() => ask("move", null)}>New alias</button></div>`}
    ${aliases.length === 0 && html`<${Card}><${Empty} title="No alias yet"><p>The first promotion makes latest.</p><//><//>`}
    ${latestFirst(aliases).map((one) => html`<${One} key=${one.alias} alias=${one} may=${may} ask=${ask} />`)}
    <${Move} open=${asked.what === "move"} name=${name} alias=${asked.alias} versions=${versions} onClose=${close} onChange=${onChange} />
    <${Rollback} open=${asked.what === "rollback"} name=${name} alias=${asked.alias} onClose=${close} onChange=${onChange} />`;
}

const SHOWN = 8;

function One({ alias, may, ask }) {
  const target = before(alias.history);
  const actions = may && html`<button onClick=${() => ask("move", alias)}>Move…</button>
    <button onClick=${() => ask("rollback", alias)} disabled=${!target}>${target ? `Roll back to :${split(target)[1]}…` : "Nothing to roll back to"}</button>`;
  const [recent, older] = [alias.history.slice(0, SHOWN), alias.history.slice(SHOWN)];
  return html`<${Card} title=${alias.alias} note=${html`names <${Ref} of=${alias.version} />`} actions=${actions}>
    <${History} caption=${`Moves of ${alias.alias}, newest first`} moves=${recent} />
    ${older.length > 0 && html`<details class="figures"><summary>${older.length} older moves</summary><${History} caption=${`Older moves of ${alias.alias}`} moves=${older} /></details>`}
  <//>`;
}

function History({ caption, moves }) {
  const columns = [
    { name: "Revision", cell: (one) => one.revision },
    { name: "Version", cell: (one) => html`<${Ref} of=${one.version} />` },
    { name: "Why", cell: (one) => html`<${Why} reason=${one.reason} />` },
    { name: "Who", cell: (one) => one.by || html`<span class="note">${one.reason.startsWith("gate of ") ? "the gate" : "–"}</span>` },
    { name: "When", cell: (one) => html`<span class="nowrap"><${When} at=${one.created_at} /></span>` },
  ];
  return html`<${Table} caption=${caption} columns=${columns} rows=${moves} id=${(one) => one.revision} />`;
}

// Somebody else moved it since this was opened: what is shown behind it is brought up to date.
const told = (onChange) => (error) => {
  if (error.status === 412) return html`<${Overtaken} error=${error} onChange=${onChange} />`;
  if (error.code === "gate_refused") return html`<div role="alert" class="stack"><p><strong>The gate refuses.</strong> Nothing has changed; under Versions a promotion can be forced.</p><${Findings} of=${error.errors} /></div>`;
  return html`<${Trouble} error=${error} />`;
};

function Overtaken({ error, onChange }) {
  return html`<div class="trouble" role="alert"><p><strong>Somebody else moved it meanwhile.</strong> ${error.message}. Nothing was changed by you.</p>
    <button type="button" onClick=${onChange}>Show me what it names now</button></div>`;
}

function Move({ open, name, alias, versions, onClose, onChange }) {
  return html`<${MoveForm} key=${`${open} ${alias?.alias}`} ...${{ open, name, alias, versions, onClose, onChange }} />`;
}

function MoveForm({ open, name, alias, versions, onClose, onChange }) {
  const [seen] = useState(alias); // with the revision that is looked at, whatever happens meanwhile
  const [form, setForm] = useState({ alias: seen?.alias || "", version: "", reason: "" });
  const set = (field) => (event) => setForm({ ...form, [field]: event.target.value });
  const others = versions.filter((one) => one.ref !== seen?.version);
  function deed() {
    const more = seen ? { "If-Match": `"${seen.revision}"` } : { "If-None-Match": "*" };
    const body = { version: Number(form.version), reason: form.reason || "manual" };
    return put(api(name, "aliases", form.alias), body, { more });
  }
  function done(moved) {
    tell(`${moved.alias} names ${moved.version} now.`);
    onChange();
  }
  return html`<${Ask} open=${open} title=${seen ? `Move ${seen.alias}` : "New alias"} label=${seen ? "Move" : "Make it"} deed=${deed} onDone=${done}
    onClose=${onClose} told=${told(() => { onClose(); onChange(); })}>
    ${seen && html`<p><strong>${seen.alias}</strong> names <strong>${seen.version}</strong> (revision ${seen.revision}).${seen.alias === "latest" && " It moves only if the gate lets it."}</p>`}
    ${!seen && html`<${Field} label="Name" hint="Up to 64 of a-z 0-9 . _ -, not only digits.">${(given) => html`<input ...${given} required autocomplete="off" maxlength="64" placeholder="staging" value=${form.alias} onInput=${set("alias")} />`}<//>`}
    <${Field} label="Version">${(given) => html`<select ...${given} required value=${form.version} onChange=${set("version")}>
      <option value="">Choose…</option>
      ${others.map((one) => html`<option key=${one.ref} value=${one.number}>${one.ref}${one.aliases.length ? ` (${one.aliases.join(", ")})` : ""}</option>`)}</select>`}<//>
    <${Field} label="Reason" hint="Kept in the alias's history.">${(given) => html`<input ...${given} maxlength="500" value=${form.reason} onInput=${set("reason")} />`}<//>
  <//>`;
}

export function Rollback({ open, name, alias, onClose, onChange }) {
  return html`<${RollbackForm} key=${`${open} ${alias?.alias}`} ...${{ open, name, alias, onClose, onChange }} />`;
}

function RollbackForm({ open, name, alias, onClose, onChange }) {
  const [seen] = useState(alias);
  const target = seen && before(seen.history);
  const deed = () => post(api(name, "aliases", seen.alias, "rollback"), undefined, { more: { "If-Match": `"${seen.revision}"` } });
  function done(moved) {
    tell(`${moved.alias} names ${moved.version} again.`);
    onChange();
  }
  return html`<${Ask} open=${open} title=${`Roll back ${seen?.alias}`} label=${`Roll back to ${target}`} danger deed=${deed} onDone=${done}
    onClose=${onClose} told=${told(() => { onClose(); onChange(); })}>
    ${seen && html`<p class="from-to"><span><${Flags} names=${[seen.alias]} /> goes from</span> <strong>${seen.version}</strong> <span>back to</span> <strong>${target}</strong></p>
    <p class="note">/judge follows at once. The gate is not asked: the version has been there before. A canary of this alias ends.</p>`}
  <//>`;
}
