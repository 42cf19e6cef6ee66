// Ask the gate to promote a version; go around it with a key and a reason.

import { get, post } from "../../api.js";
import { Ask } from "../../parts/dialogs.js";
import { useLoad } from "../../parts/hooks.js";
import { Field, Loaded, Trouble, tell, useCaller } from "../../parts/ui.js";
import { html, useEffect, useState } from "../../vendor/preact.js";
import { Findings, api, split } from "./registry.js";

const EMPTY = { alias: "latest", reason: "", force: false, secret: "" };

// version: its ref, or null while nothing is asked. aliases: [AliasOut] of its model. onDone: there
// is a new decision.
export function Promote({ version, aliases, onClose, onDone }) {
  const caller = useCaller();
  const [form, setForm] = useState(EMPTY);
  const [last, setLast] = useState(version); // the words stay while the dialog closes
  useEffect(() => {
    if (version === null) return;
    setForm(EMPTY);
    setLast(version);
  }, [version]);
  if (last === null) return null;
  const [name, number] = split(last);
  const holder = aliases.find((one) => one.alias === form.alias)?.version;
  const set = (field) => (event) => setForm({ ...form, [field]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  async function deed() {
    const { secret, ...body } = form;
    const more = form.force && secret ? { Authorization: `Bearer ${secret.trim()}` } : {};
    try {
      return await post(api(name, "versions", number, "promote"), { ...body, reason: body.reason || null }, { more });
    } catch (error) {
      if (error.code === "gate_refused") onDone(); // the refusal is on record
      throw error;
    }
  }
  return html`<${Ask} open=${version !== null} title=${`Promote ${last}`} label=${form.force ? "Force the promotion" : "Ask the gate"} danger=${form.force}
    deed=${deed} onClose=${onClose} onDone=${(made) => { tell(`${made.version} is ${made.alias} now.`); onDone(); }}
    told=${(error) => error.code === "gate_refused" && html`<${Refusal} error=${error} name=${name} number=${number} />`}>
    <p>${holder ? html`It must be at least as good as <strong>${holder}</strong>, which <strong>${form.alias}</strong> names now, by every rule of the gate.` : html`<strong>${form.alias}</strong> names no version yet: there is nothing to compare it with.`}</p>
    <${Field} label="Alias" hint="latest is what /judge answers with.">${(given) => html`<input ...${given} required value=${form.alias} onInput=${set("alias")} />`}<//>
    <${Field} label="Reason" hint="Kept in the record and the alias's history.">${(given) => html`<input ...${given} required=${form.force} maxlength="500" value=${form.reason} onInput=${set("reason")} />`}<//>
    <label class="check"><input type="checkbox" checked=${form.force} onChange=${set("force")} /> Promote even if a rule fails</label>
    ${form.force && html`<p class="note">For what the gate cannot know, such as an incumbent that must go. The record keeps the failed rules, your key's name and the reason.</p>`}
    ${form.force && !caller.key && html`<${Field} label="API key with the scope promote" hint="Somebody has to stand for it: it is sent with this request and not kept.">
      ${(given) => html`<input ...${given} type="password" autocomplete="off" required placeholder="st_…" value=${form.secret} onInput=${set("secret")} />`}<//>`}
  <//>`;
}

// The refusal is on record, with the rules that passed, too.
function Refusal({ error, name, number }) {
  const found = useLoad((signal) => get(api(name, "versions", number, "promotions"), { limit: 1 }, signal), [error]);
  return html`<div role="alert" class="stack"><p><strong>The gate refuses.</strong> Nothing has changed.</p>
    <${Loaded} of=${found}>${({ data: [decision] }) => (decision ? html`<${Findings} of=${decision.findings} />` : html`<${Trouble} error=${error} />`)}<//></div>`;
}
