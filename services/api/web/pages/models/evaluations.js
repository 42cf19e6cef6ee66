// A version on benchmarks, section by section, and beside another version on the same examples.

import { all, get, post } from "../../api.js";
import { Ask } from "../../parts/dialogs.js";
import { number, percent, signed } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import { Card, Chip, Empty, Field, Loaded, Meter, Table, Trouble, When, tell, useMay } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html, useState } from "../../vendor/preact.js";

const LIVE_SECONDS = 5;
const WORKING = new Set(["pending", "running", "pausing", "cancelling"]);

export function Evaluations({ version }) {
  const [working, setWorking] = useState(false);
  const [asking, setAsking] = useState(false);
  const found = useLoad(
    async (signal) => {
      const { data } = await get("/v1/evaluations", { model: version.model, limit: 100 }, signal);
      setWorking(data.some((one) => one.model === version.ref && WORKING.has(one.state)));
      return data;
    },
    [version.ref],
    working ? LIVE_SECONDS : 0,
  );
  const actions = useMay("write") && html`<button onClick=${() => setAsking(true)}>Evaluate…</button>`;
  return html`<${Card} title="Benchmarks" actions=${actions}>
    <${Loaded} of=${found}>${(list) => {
      const own = list.filter((one) => one.model === version.ref);
      if (!own.length) return html`<${Empty} title="No evaluation yet"><p>Judge a benchmark or a labelled dataset with it.</p><//>`;
      return own.map((one) => html`<${One} key=${one.id} of=${one} others=${comparable(one, list)} />`);
    }}<//>
    <${Start} open=${asking} version=${version} onClose=${() => setAsking(false)} onDone=${found.reload} />
  <//>`;
}

// Those of other versions on the same file.
function comparable(one, list) {
  const same = (other) => other.model !== one.model && other.state === "succeeded" && other.settings.dataset_sha256 === one.settings.dataset_sha256 && other.benchmark === one.benchmark;
  return one.state === "succeeded" ? list.filter(same) : [];
}

function One({ of, others }) {
  const name = `${of.settings.labelled ? "labelled pairs" : of.benchmark}`;
  const figure = of.scores[0]?.figures[0];
  return html`<details class="decision" open=${!!others.length || WORKING.has(of.state)}>
    <summary><strong>${name}</strong> ${figure ? html`<span>${percent(figure.value)} <span class="note">${percent(figure.low, 0)} to ${percent(figure.high, 0)}</span></span>` : html`<${Chip} state=${of.state} />`}
      <span class="note">${number(of.examples_done)} examples, <${When} at=${of.created_at} /></span></summary>
    <div class="stack">
      <p class="note">Dataset <a href=${to(`/datasets/${of.dataset}`)}>${of.dataset}</a></p>
      ${WORKING.has(of.state) && html`<${Meter} value=${of.examples_done / (of.counts.examples || of.settings.limit || 1)} label="Examples judged" />`}
      ${of.error && html`<${Trouble} error=${of.error} />`}
      ${others.length > 0 && html`<${Compare} of=${of} others=${others} />`}
      <div class="grid">${of.scores.map((one) => html`<${Score} key=${one.scoring} id=${of.id} of=${one} />`)}</div>
    </div>
  </details>`;
}

const told = (name) => name.replace(/^(section|subset)\//, "").replaceAll("_", " ");
const RATES = ["position_bias", "bias"];

function Score({ id, of: { scoring, template, figures, counts } }) {
  const value = (one, x) => (RATES.includes(one.name) ? signed(x) : percent(x));
  const columns = [
    { name: "Part", cell: (one) => html`<span class=${one.name.startsWith("subset/") ? "note indent" : ""}>${told(one.name)}</span>` },
    { name: "Score", number: true, cell: (one) => value(one, one.value) },
    { name: "95 % interval", number: true, cell: (one) => html`<span class="nowrap">${value(one, one.low)} to ${value(one, one.high)}</span>` },
  ];
  return html`<div class="stack"><h3>${scoring} scoring <span class="note">asked with ${template.name}</span></h3>
    <${Table} caption=${`Figures of ${id} by ${scoring} scoring`} columns=${columns} rows=${figures} id=${(one) => one.name} />
    <p class="note">${Object.entries(counts).map(([name, count]) => `${name.replaceAll("_", " ")} ${number(count)}`).join(" · ")}</p></div>`;
}

function Compare({ of, others }) {
  const [other, setOther] = useState("");
  const found = useLoad((signal) => (other ? get(`/v1/evaluations/${other}/compare/${of.id}`, {}, signal) : null), [other]);
  return html`<${Field} label="Compare with" hint="Paired: only examples that both judged count.">
      ${(given) => html`<select ...${given} value=${other} onChange=${(event) => setOther(event.target.value)}><option value="">Choose a version…</option>
        ${others.map((one) => html`<option key=${one.id} value=${one.id}>${one.model}, ${one.settings.template}${one.settings.votes > 1 ? `, ${one.settings.votes} votes` : ""}</option>`)}</select>`}<//>
    ${other && html`<${Loaded} of=${found}>${(result) => html`<div role="status" class="stack">${result.paired.map((one) => html`<${Paired} key=${one.scoring} models=${result.models} of=${one} />`)}</div>`}<//>`}`;
}

function Paired({ models: [first, second], of }) {
  const sure = of.low > 0 || of.high < 0;
  const points = (value) => `${signed(100 * value, 1)}`;
  return html`<p><strong>${of.scoring}:</strong> ${sure ? `${of.difference > 0 ? second : first} is better.` : "Chance may explain the difference."}
    ${" "}${second} has ${percent(of.second)}, ${first} ${percent(of.first)}: ${points(of.difference)} points (${points(of.low)} to ${points(of.high)}), on ${number(of.n)} examples.
    Only ${second} is right on ${of.only_second}, only ${first} on ${of.only_first}; McNemar p = ${of.p < 0.001 ? of.p.toExponential(1) : of.p.toFixed(3)}.</p>`;
}

function Start({ open, version, onClose, onDone }) {
  const datasets = useLoad(() => (open ? all("/v1/datasets") : null), [open]);
  const [form, setForm] = useState({ dataset: "", limit: "" });
  const set = (field) => (event) => setForm({ ...form, [field]: event.target.value });
  const usable = (datasets.data || []).filter((one) => one.kind === "benchmark" || one.kind === "labelled");
  return html`<${Ask} open=${open} title=${`Evaluate ${version.ref}`} label="Start" disabled=${!usable.length} onClose=${onClose}
    deed=${() => post("/v1/evaluations", { dataset: form.dataset, model: version.ref, limit: form.limit ? Number(form.limit) : null })} onDone=${() => { tell("The evaluation has started."); onDone(); }}>
    ${datasets.data && !usable.length && html`<p>There is no benchmark or labelled dataset yet: <a href=${to("/datasets")}>upload one</a>.</p>`}
    <${Field} label="Benchmark or labelled dataset">${(given) => html`<select ...${given} required value=${form.dataset} onChange=${set("dataset")}><option value="">Choose…</option>
      ${usable.map((one) => html`<option key=${one.id} value=${one.id}>${one.name} (${one.benchmark || one.kind}, ${number(one.rows)} rows)</option>`)}</select>`}<//>
    <${Field} label="At most so many examples" hint="Drawn by the seed; empty: all.">${(given) => html`<input ...${given} type="number" min="1" value=${form.limit} onInput=${set("limit")} />`}<//>
  <//>`;
}
