// A version: everything that it came from, how good it is, what the gate said, its benchmarks.

import { download, get, remove } from "../../api.js";
import { LineChart } from "../../parts/charts.js";
import { Ask } from "../../parts/dialogs.js";
import { bytes, number, percent, share, signed, time, words } from "../../parts/format.js";
import { useDeed, useLoad } from "../../parts/hooks.js";
import { Card, Chip, Copy, Empty, Facts, Loaded, Page, Table, Trouble, When, tell, useMay } from "../../parts/ui.js";
import { go, to } from "../../router.js";
import { html, useState } from "../../vendor/preact.js";
import { Evaluations } from "./evaluations.js";
import { Promote } from "./promote.js";
import { Accuracy, Aliases, Decision, Findings, Ref, api, link, setName, setsOf } from "./registry.js";

async function load(name, number, signal) {
  const [version, decisions, aliases] = await Promise.all([
    get(api(name, "versions", number), {}, signal),
    get(api(name, "versions", number, "promotions"), { limit: 50 }, signal),
    get(api(name, "aliases"), {}, signal),
  ]);
  return { version, decisions: decisions.data, aliases: aliases.data };
}

export default function Version({ params: { name, number: text } }) {
  const ref = `${name}:${text}`;
  const found = useLoad((signal) => load(name, text, signal), [ref]);
  const [asked, setAsked] = useState(null);
  const may = useMay("promote");
  const version = found.data?.version;
  const actions = version && html`
    <a class="button" href=${to("/playground", { a: ref })}>Try it</a>
    <a class="button" href=${to(`/reviews/${encodeURIComponent(name)}/${text}`)}>Review it</a>
    ${may && html`${!version.aliases.includes("latest") && html`<button onClick=${() => setAsked("promote")}>Promote…</button>`}
    <button class="danger" onClick=${() => setAsked("delete")}>Delete…</button>`}`;
  const lead = version && html`Made <${When} at=${version.created_at} /> <${Aliases} names=${version.aliases} />`;
  return html`<${Page} title=${ref} lead=${lead} actions=${actions} crumbs=${[["Models", to("/models")], [name, to(link(name))]]}>
    <${Loaded} of=${found}>${(data) => html`
      <${Lineage} of=${data.version} />
      <${Metrics} of=${data.version} />
      <${Decisions} of=${data.decisions} />
      <${Evaluations} key=${ref} version=${data.version} />
      <div class="grid"><${Training} of=${data.version.lineage.train} />
        <div class="stack"><${Files} of=${data.version} /><${Counts} of=${data.version.lineage.counts} />
        <${Card} title="Recipe" note="every setting, as it was"><details class="figures"><summary>Show the recipe</summary><pre tabindex="0">${JSON.stringify(data.version.lineage.recipe, null, 2)}</pre></details><//></div></div>
      <${Promote} version=${asked === "promote" ? ref : null} aliases=${data.aliases} onClose=${() => setAsked(null)} onDone=${found.reload} />
      <${Ask} open=${asked === "delete"} title=${`Delete ${ref}`} label="Delete it for good" danger onClose=${() => setAsked(null)}
        deed=${() => remove(api(name, "versions", text))} onDone=${() => { tell(`${ref} is deleted.`); go(link(name)); }}>
        <p>Its weights and everything about it go. Its number is not given again, and aliases can no longer be rolled back to it.</p>
        <p class="note">It is refused while an alias names it, a canary tries it, a running job needs it, or another version was trained from it.</p>
      <//>`}<//>
  <//>`;
}

const Hash = ({ of }) => (of ? html`<code title=${of}>${of.slice(0, 12)}…</code> <${Copy} text=${of} />` : "–");
const yes = (value) => html`<${Chip} kind=${value ? "warn" : "good"}>${value ? "yes" : "no"}<//>`;

function Lineage({ of: { job, iteration, parent, sha256, created_at, lineage } }) {
  const { dataset, template, recipe, base_model } = lineage;
  return html`<${Card} title="Where it came from" note="all that it takes to make it again">
    <${Facts} pairs=${[
      ["Made", time(created_at)],
      ["Job", job ? html`<a href=${to(`/jobs/${job}`)}>${job}</a>${iteration ? `, iteration ${iteration}` : ""}` : "–"],
      ["Parent, the judge of its data", parent ? html`<${Ref} of=${parent} />` : "none: a base model"],
      lineage.trained_from && ["Training began from", html`<${Ref} of=${lineage.trained_from} />`],
      dataset && ["Dataset", html`<a href=${to(`/datasets/${dataset.id}`)}>${dataset.id}</a>`],
      dataset && ["Dataset's hash", html`<${Hash} of=${dataset.sha256} />`],
      ["Base model", `${recipe?.base_model ?? "–"}${base_model?.license ? `, ${base_model.license}` : ""}`],
      ["Recipe", `${recipe?.name ?? "–"}, seed ${lineage.seed}`],
      ["Judge template", template?.name ?? "–"],
      ["Template's hash", html`<${Hash} of=${template?.sha256} />`],
      ["Inference", lineage.inference ?? "–"],
      ["Code version", lineage.code_version ?? "–"],
      ["Weights", html`<${Hash} of=${sha256} />`],
      ["People's labels in training", yes(lineage.human_labels_in_training)],
      ["People's labels chose the checkpoint", yes(lineage.human_labels_chose_checkpoint)],
      ["Reference answers in training", yes(lineage.reference_answers_in_training)],
    ]} />
  <//>`;
}

function Metrics({ of: { metrics, ...version } }) {
  const sets = setsOf([{ metrics, ...version }]);
  const rows = sets.flatMap((set) => [
    { name: setName(set), ...metrics[set] },
    ...Object.entries(metrics[set].subsets || {}).map(([subset, found]) => ({ name: `${setName(set)}: ${subset}`, inner: subset, ...found })),
  ]);
  const columns = [
    { name: "Set", cell: (one) => (one.inner ? html`<span class="note indent">${one.inner}</span>` : setName(one.name)) },
    { name: "Pairs", number: true, cell: (one) => number(one.n) },
    { name: "Strict accuracy", number: true, cell: (one) => html`<${Accuracy} of=${one} />` },
    { name: "Mean accuracy", number: true, cell: (one) => percent(one.mean_accuracy) },
    { name: "Position bias", number: true, cell: (one) => signed(one.position_bias) },
    { name: "Ties", number: true, cell: (one) => percent(one.ties) },
    { name: "Parse failures", number: true, cell: (one) => percent(one.parse_failures) },
  ];
  return html`<${Card} title="How good it is" note="on the pairs of the job that made it">
    ${rows.length ? html`<${Table} caption="Scores by set" columns=${columns} rows=${rows} id=${(one) => one.name} />
    <p class="note">Strict: right in both orders, with its 95 % interval. Mean: the average over the orders. Bias: (A − B) / (A + B) of its verdicts; 0 has none.</p>` : html`<${Empty} title="Not scored"><p>No job has scored it; evaluate it on a benchmark below.</p><//>`}
  <//>`;
}

function Decisions({ of }) {
  return html`<${Card} title="The gate's decisions" note="newest first">
    ${of.length === 0 && html`<p class="note">The gate was never asked about it.</p>`}
    ${of.map((one, at) => html`<details class="decision" key=${one.id} open=${at === 0}>
      <summary><${Decision} of=${one} /> <span>for ${one.alias}${one.incumbent ? html`, against ${one.incumbent}` : ""}</span> <span class="note"><${When} at=${one.created_at} />${one.by ? ` by ${one.by}` : ""}: ${one.reason}</span></summary>
      <${Findings} of=${one.findings} />
    </details>`)}
  <//>`;
}

function Training({ of: train }) {
  if (!train?.curve) return null;
  const points = train.curve.map(({ step, loss }) => ({ x: step, y: loss }));
  return html`<${Card} title="Training" note=${`${train.objective ?? ""} on ${number(train.examples)} examples`}>
    <${LineChart} title="Loss by step" x="step" y="loss" series=${[{ name: "loss", points }]} told=${(value) => Number(value.toPrecision(3))} />
    <${Facts} pairs=${[
      ["Steps", number(train.steps)],
      ["Epochs", share(train.epochs, 2)],
      ["Tokens", number(train.train_tokens)],
      ["Examples too long", number(train.examples_too_long)],
      train.checkpoint && ["Checkpoint", `step ${train.checkpoint.step}, ${percent(train.checkpoint.strict_accuracy)} of ${train.chosen_on_pairs} pairs`],
    ]} />
  <//>`;
}

function Counts({ of = {} }) {
  const rows = Object.entries(of).flatMap(([stage, counts]) => Object.entries(counts).map(([name, value]) => ({ id: `${stage} ${name}`, stage, name, value })));
  if (!rows.length) return null;
  const columns = [
    { name: "Iteration and stage", cell: (one) => one.stage.replace(".", ", ") },
    { name: "What", cell: (one) => words(one.name) },
    { name: "How many", number: true, cell: (one) => (Number.isFinite(one.value) ? number(one.value) : JSON.stringify(one.value)) },
  ];
  return html`<${Card} title="Counts on the way"><details class="figures"><summary>Show the counts of ${Object.keys(of).length} stages</summary><${Table} caption="Counts by stage" columns=${columns} rows=${rows} /></details><//>`;
}

// A trained version's files; of a base model there are none to give.
function Files({ of: { model, number: at, lineage } }) {
  const found = useLoad((signal) => (lineage.trained_from ? get(api(model, "versions", at, "files"), {}, signal) : { data: [] }), [model, at]);
  const [take, { busy, error }] = useDeed((file) => download(file.url, file.name));
  const columns = [
    { name: "File", cell: (one) => html`<code>${one.name}</code>` },
    { name: "Size", number: true, cell: (one) => bytes(one.bytes) },
    { name: "Download", cell: (one) => html`<button class="small" disabled=${busy} aria-label=${`Download ${one.name}`} onClick=${() => take(one)}>Download</button>` },
  ];
  return html`<${Card} title="Files" note="as transformers and PEFT load them">
    <${Loaded} of=${found}>${({ data }) => (data.length ? html`<${Table} caption="Files of this version" columns=${columns} rows=${data} id=${(one) => one.name} />` : html`<p class="note">A base model as it is: get it where the operator got it.</p>`)}<//>
    <${Trouble} error=${error} />
  <//>`;
}
