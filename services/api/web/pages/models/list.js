// All models: what their aliases name, how good the newest version is; a base model is registered here.

import { all, get, post } from "../../api.js";
import { Ask } from "../../parts/dialogs.js";
import { number } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import { Listed, useMore } from "../../parts/more.js";
import { Card, Field, Page, Table, When, tell, useMay } from "../../parts/ui.js";
import { go, to } from "../../router.js";
import { html, useState } from "../../vendor/preact.js";
import { Accuracy, Aliases, Ref, api, link } from "./registry.js";

export default function Models() {
  const models = useMore("/v1/models", {}, "name");
  const [asking, setAsking] = useState(false);
  const actions = useMay("write") && html`<button class="primary" onClick=${() => setAsking(true)}>Register a base model</button>`;
  return html`<${Page} title="Models" lead="Every judge that was made here, and which version answers." actions=${actions}>
    <${Card}><${Listed} of=${models} empty="No models yet: a job makes one, and a base model can be registered.">${(rows) => html`<${List} models=${rows} />`}<//><//>
    <${Register} open=${asking} onClose=${() => setAsking(false)} />
  <//>`;
}

function List({ models }) {
  const columns = [
    { name: "Model", cell: (one) => html`<a href=${to(link(one.name))}>${one.name}</a>` },
    { name: "Versions", number: true, cell: (one) => number(one.versions) },
    { name: "Aliases", cell: (one) => html`<${Named} aliases=${one.aliases} />` },
    { name: "Newest version", cell: (one) => html`<${Newest} key=${`${one.name} ${one.versions}`} model=${one.name} />` },
  ];
  return html`<${Table} caption="Models by name" columns=${columns} rows=${models} id=${(one) => one.name} />`;
}

const Named = ({ aliases }) => {
  const names = Object.entries(aliases).sort(([a], [b]) => (b === "latest") - (a === "latest") || a.localeCompare(b));
  if (!names.length) return html`<span class="note">none</span>`;
  return html`<ul class="pairs">${names.map(([alias, ref]) => html`<li key=${alias}><${Aliases} names=${[alias]} /> <${Ref} of=${ref} short /></li>`)}</ul>`;
};

// A row asks for its own newest version, so that the list is there at once.
function Newest({ model }) {
  const found = useLoad((signal) => get(api(model, "versions"), { limit: 1 }, signal), [model]);
  const one = found.data?.data[0];
  if (!one) return html`<span class="note">${found.error ? found.error.message : "…"}</span>`;
  const sets = Object.entries(one.metrics).filter(([set]) => !set.includes("/"));
  return html`<${Ref} of=${one.ref} short /> <span class="note"><${When} at=${one.created_at} /></span>
    ${sets.map(([set, metrics]) => html`<br /><span class="note">${set === "heldout" ? "held-out" : set}</span> <${Accuracy} of=${metrics} />`)}`;
}

function Register({ open, onClose }) {
  const [form, setForm] = useState({ base_model: "", name: "", template: "mt-bench", inference: "local" });
  const templates = useLoad(() => (open ? all("/v1/templates", {}, "name") : null), [open]);
  const judges = (templates.data || []).filter((one) => one.kind === "judge");
  const set = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  return html`<${Ask} open=${open} onClose=${onClose} title="Register a base model" label="Register"
    deed=${() => post("/v1/models", { ...form, name: form.name || null })}
    onDone=${(job) => { tell(`Job ${job.id} checks its weights.`); go(`/jobs/${job.id}`); }}>
    <p class="note">A base model becomes a version as it is, to be evaluated or to judge. A job checks and hashes its weights.</p>
    <${Field} label="Base model" hint="By the name of its folder, as the operator allows it.">${(given) => html`<input ...${given} required autocomplete="off" placeholder="smallworld" value=${form.base_model} onInput=${set("base_model")} />`}<//>
    <${Field} label="Name of the model" hint="Default: the base model's.">${(given) => html`<input ...${given} autocomplete="off" pattern="[a-z0-9][a-z0-9._\\-]*" maxlength="64" value=${form.name} onInput=${set("name")} />`}<//>
    <${Field} label="Judge template" hint="What it is asked with.">${(given) => html`<select ...${given} value=${form.template} onChange=${set("template")}>
      ${(judges.length ? judges.map((one) => one.name) : [form.template]).map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>`}<//>
    <${Field} label="Inference" hint="local, vllm, or the name of an operator's endpoint.">${(given) => html`<input ...${given} required value=${form.inference} onInput=${set("inference")} />`}<//>
  <//>`;
}
