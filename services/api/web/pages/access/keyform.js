// What a new key is made of: for this project's page and the operator's.

import { Field } from "../../parts/ui.js";
import { html } from "../../vendor/preact.js";

const SCOPES = [
  ["read", "look at everything of the project"],
  ["write", "make datasets, jobs, evaluations, reviews"],
  ["judge", "ask the judge, in questions and batches"],
  ["promote", "move aliases, run canaries, delete versions"],
  ["admin", "keys, webhooks, the audit log"],
];
const LIFETIMES = [["30", "in 30 days"], ["90", "in 90 days"], ["365", "in a year"], ["", "never"]];

export const emptyKey = (scopes = ["read", "judge"]) => ({ name: "", scopes, days: "90" });
export const keyBody = ({ name, scopes, days }) => ({ name, scopes, expires_in_days: days ? Number(days) : null });

export function KeyForm({ form, onChange }) {
  const set = (field) => (event) => onChange({ ...form, [field]: event.target.value });
  const toggle = (scope) => onChange({ ...form, scopes: form.scopes.includes(scope) ? form.scopes.filter((one) => one !== scope) : [...form.scopes, scope] });
  return html`
    <${Field} label="Name" hint="Who holds it; it stands in all records and is never given to another.">${(given) => html`<input ...${given} required autocomplete="off" maxlength="100" placeholder="ci" value=${form.name} onInput=${set("name")} />`}<//>
    <fieldset class="choices stacked"><legend>It may</legend>
      ${SCOPES.map(([scope, told]) => html`<label class="check" key=${scope}><input type="checkbox" checked=${form.scopes.includes(scope)} onChange=${() => toggle(scope)} /> <span><strong>${scope}</strong> <span class="note">${told}</span></span></label>`)}
    </fieldset>
    <${Field} label="It expires">${(given) => html`<select ...${given} value=${form.days} onChange=${set("days")}>${LIFETIMES.map(([days, name]) => html`<option key=${name} value=${days}>${name}</option>`)}</select>`}<//>
  `;
}
