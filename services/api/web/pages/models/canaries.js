// Canaries: a version tried on a share of an alias's questions, and how it compares.

import { get, put, remove } from "../../api.js";
import { Ask } from "../../parts/dialogs.js";
import { duration, number, percent, share, signed, time } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import { Card, Chip, Empty, Facts, Field, Loaded, Table, When, tell, useMay } from "../../parts/ui.js";
import { html, useState } from "../../vendor/preact.js";
import { Ref, api } from "./registry.js";

const LIVE_SECONDS = 5;

export function CanaryCards({ name, canaries, aliases, versions, onChange }) {
  const [starting, setStarting] = useState(false);
  const [opened, setOpened] = useState(null);
  const may = useMay("promote");
  const living = canaries.filter((one) => !one.ended_at);
  const ended = canaries.filter((one) => one.ended_at);
  const columns = [
    { name: "Tried", cell: (one) => html`<${Ref} of=${one.version} />` },
    { name: "Beside", cell: (one) => html`<${Ref} of=${one.incumbent} />` },
    { name: "Alias", cell: (one) => one.alias },
    { name: "Mode", cell: (one) => `${one.mode}, ${percent(one.share, 0)}` },
    { name: "Ended", cell: (one) => html`<${When} at=${one.ended_at} />` },
    { name: "Because", cell: (one) => one.ended_reason },
    { name: "Report", cell: (one) => html`<button class="small" aria-expanded=${opened === one.id} onClick=${() => setOpened(opened === one.id ? null : one.id)}>Report</button>` },
  ];
  return html`
    ${may && html`<div class="actions"><button disabled=${!aliases.length || versions.length < 2} onClick=${() => setStarting(true)}>Start a canary</button></div>`}
    ${!canaries.length && html`<${Card}><${Empty} title="No canary yet"><p>Try a version on a share of an alias's questions before it leads.</p><//><//>`}
    ${living.map((one) => html`<${Living} key=${one.id} canary=${one} may=${may} onChange=${onChange} />`)}
    ${ended.length > 0 && html`<${Card} title="Ended"><${Table} caption="Canaries that have ended, newest first" columns=${columns} rows=${ended} />
      ${opened && html`<${Report} key=${opened} canary=${opened} />`}<//>`}
    <${Start} key=${starting} open=${starting} ...${{ name, aliases, versions, onChange }} onClose=${() => setStarting(false)} />`;
}

function Living({ canary, may, onChange }) {
  const [ending, setEnding] = useState(false);
  const note = canary.mode === "shadow" ? "it judges the same pairs unseen" : "it answers";
  return html`<${Card} title=${`${canary.version} beside ${canary.incumbent}`} note=${html`<${Chip} kind="busy">${canary.mode}<//> ${note}, on ${percent(canary.share, 0)} of ${canary.alias}`}
    actions=${may && html`<button onClick=${() => setEnding(true)}>End…</button>`}>
    <p class="note">Since ${time(canary.created_at)}: ${canary.reason}</p>
    <${Report} canary=${canary.id} live />
    <${Ask} open=${ending} title=${`End the canary of ${canary.alias}`} label="End it" danger onClose=${() => setEnding(false)}
      deed=${() => remove(api(canary.model, "aliases", canary.alias, "canary"))} onDone=${() => { tell("The canary has ended; its report stays."); onChange(); }}>
      <p>${canary.version} gets no more questions of ${canary.alias}. What was found can be read on.</p><//>
  <//>`;
}

function Report({ canary, live }) {
  const found = useLoad((signal) => get(`/v1/canaries/${canary}/report`, {}, signal), [canary], live ? LIVE_SECONDS : 0);
  return html`<${Loaded} of=${found}>${(report) => html`<${Compared} report=${report} />`}<//>`;
}

const MEASURES = [
  ["Questions", (arm) => number(arm.n)],
  ["A / B / tie", (arm) => ["A", "B", "tie"].map((one) => number(arm.verdicts[one] ?? 0)).join(" / ")],
  ["Unparsable, failed", (arm) => `${number(arm.verdicts.unparsable ?? 0)}, ${number(arm.verdicts.failed ?? 0)}`],
  ["Ties", (arm) => percent(arm.tie_share)],
  ["Position bias", (arm) => (arm.position_bias === null ? "–" : signed(arm.position_bias))],
  ["Orders disagree", (arm) => percent(arm.order_disagreement)],
  ["Parse failures", (arm) => percent(arm.parse_failure_rate)],
  ["Mean confidence", (arm) => share(arm.mean_confidence)],
  ["Engine time, median", (arm) => duration(arm.seconds_p50)],
  ["Engine time, slowest 5 %", (arm) => duration(arm.seconds_p95)],
];

function Compared({ report }) {
  const { canary, agreement, arms } = report;
  if (arms.incumbent.n + arms.canary.n === 0) return html`<p class="note">No question has come by the alias yet.</p>`;
  const columns = [
    { name: "Measure", cell: ([name]) => name },
    { name: `${canary.incumbent}`, number: true, cell: ([, told]) => told(arms.incumbent) },
    { name: `${canary.version} (canary)`, number: true, cell: ([, told]) => told(arms.canary) },
  ];
  return html`
    ${agreement.n > 0 && html`<${Facts} pairs=${[
      ["Judged by both", number(agreement.n)],
      ["Same verdict", `${percent(agreement.agreement)}${agreement.ci95 ? ` (${percent(agreement.ci95[0], 0)} to ${percent(agreement.ci95[1], 0)})` : ""}`],
      ["Cohen's kappa", `${share(agreement.kappa, 2)}${agreement.kappa_ci95 ? ` (${share(agreement.kappa_ci95[0], 2)} to ${share(agreement.kappa_ci95[1], 2)})` : ""}`],
    ]} />`}
    <${Table} caption=${`Measures of ${canary.version} and ${canary.incumbent}`} columns=${columns} rows=${MEASURES} id=${([name]) => name} />
    ${agreement.n > 0 && html`<${Confusion} of=${agreement.confusion} canary=${canary} />`}`;
}

function Confusion({ of, canary }) {
  const verdicts = Object.keys(of);
  const columns = [
    { name: `${canary.incumbent} ↓  ${canary.version} →`, cell: (one) => one },
    ...verdicts.map((name) => ({ name, number: true, cell: (one) => (one === name ? html`<strong>${of[one][name]}</strong>` : of[one][name]) })),
  ];
  return html`<details class="figures"><summary>Where they differ</summary><${Table} caption="Verdicts of both: the incumbent's by row, the canary's by column" columns=${columns} rows=${verdicts} id=${String} /></details>`;
}

function Start({ open, name, aliases, versions, onClose, onChange }) {
  const [form, setForm] = useState({ alias: aliases.some((one) => one.alias === "latest") ? "latest" : aliases[0]?.alias || "", version: "", mode: "shadow", share: 10, reason: "" });
  const set = (field) => (event) => setForm({ ...form, [field]: event.target.value });
  const holder = aliases.find((one) => one.alias === form.alias)?.version;
  const body = { version: Number(form.version), mode: form.mode, share: Number(form.share) / 100, reason: form.reason || "manual" };
  return html`<${Ask} open=${open} title="Start a canary" label="Start" onClose=${onClose} deed=${() => put(api(name, "aliases", form.alias, "canary"), body)}
    onDone=${(one) => { tell(`${one.version} is tried on ${one.alias}.`); onChange(); }}>
    <${Field} label="Alias" hint=${holder && `It names ${holder}. Another canary of it ends.`}>${(given) => html`<select ...${given} value=${form.alias} onChange=${set("alias")}>${aliases.map((one) => html`<option key=${one.alias}>${one.alias}</option>`)}</select>`}<//>
    <${Field} label="Version to try">${(given) => html`<select ...${given} required value=${form.version} onChange=${set("version")}><option value="">Choose…</option>
      ${versions.filter((one) => one.ref !== holder).map((one) => html`<option key=${one.ref} value=${one.number}>${one.ref}</option>`)}</select>`}<//>
    <fieldset class="choices stacked"><legend>How</legend>
      ${[["shadow", "Shadow: the alias's version answers, this one judges the same pairs unseen"], ["share", "Share: this one answers its share of the questions"]].map(
        ([mode, told]) => html`<label class="check"><input type="radio" name="mode" value=${mode} checked=${form.mode === mode} onChange=${set("mode")} /> ${told}</label>`)}
    </fieldset>
    <${Field} label="Share of the questions, %">${(given) => html`<input ...${given} type="number" min="0.1" max="100" step="any" required value=${form.share} onInput=${set("share")} />`}<//>
    <${Field} label="Reason">${(given) => html`<input ...${given} maxlength="500" value=${form.reason} onInput=${set("reason")} />`}<//>
  <//>`;
}
