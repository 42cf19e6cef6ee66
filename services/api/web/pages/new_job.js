// A form for a new job of the loop: which instructions, which recipe, and what to change in it.

import { all, get, post } from "../api.js";
import { ago, number } from "../parts/format.js";
import { useDeed, useLoad } from "../parts/hooks.js";
import { Card, Empty, Facts, Field, Loaded, Page, Trouble, useMay } from "../parts/ui.js";
import { go, to } from "../router.js";
import { html, useState } from "../vendor/preact.js";

// Settings that are often changed: [path, label, hint].
const COMMON = [
  ["iterations", "Iterations", "rounds that train a version"],
  ["pair.instructions", "Instructions per iteration", "fresh ones for each"],
  ["judge.samples", "Judgments", "for each pair in each order"],
  ["train.steps", "Training steps", "of each iteration"],
];
const MAIN = [
  ["Base model", "base_model"], ["Served by", "inference"], ["Judge template", "judge.template"], ["Weights", "train.method"],
  ["Objective", "train.objective"], ["Learning rate", "train.learning_rate"],
];

const HELD_OUT = "validate.instructions"; // stands beside the dataset, whose rows they are
const LONG = 40;

const read = (tree, path) => path.split(".").reduce((at, name) => at?.[name], tree);

function write(tree, path, value) {
  const names = path.split(".");
  const last = names.pop();
  let at = tree;
  for (const name of names) at = at[name] = typeof at[name] === "object" && at[name] !== null ? at[name] : {};
  at[last] = value;
}

// The settings that are given as JSON; null while they are none.
function settings(text) {
  try {
    return text.trim() ? JSON.parse(text) : {};
  } catch {
    return null;
  }
}

// "prompts (400 rows, 3 min ago, …8c9d0e)": names may be alike, and a select cuts what is long.
function told({ id, name, rows, created_at: at }) {
  return `${name.length > LONG ? `${name.slice(0, LONG)}…` : name} (${number(rows)} rows, ${ago(at)}, …${id.slice(-6)})`;
}

export default function NewJob({ query }) {
  const may = useMay("write");
  const choices = useLoad(async () => {
    const [datasets, recipes] = await Promise.all([all("/v1/datasets"), get("/v1/recipes")]);
    return { datasets, recipes: recipes.data };
  });
  return html`<${Page} title="New job" lead="Each iteration judges pairs that it makes itself, learns from the judgments that were right, and is checked before it is promoted." crumbs=${[["Jobs", to("/")]]}>
    ${may
      ? html`<${Loaded} of=${choices}>${(found) => (found.datasets.some((one) => one.kind === "instructions") ? html`<${Form} ...${found} query=${query} />` : html`<${Card}><${Empty} title="There are no instructions yet"><p>Upload some under <a href=${to("/datasets")}>Datasets</a> first: one prompt a line is enough.</p><//><//>`)}<//>`
      : html`<${Card}><${Empty} title="This key may not start jobs"><p>It needs the scope <code>write</code>.</p><//><//>`}
  <//>`;
}

function Form({ datasets, recipes, query }) {
  const of = (kind) => datasets.filter((one) => one.kind === kind);
  const [form, setForm] = useState({
    dataset: query.dataset || of("instructions")[0].id,
    labelled_dataset: "",
    recipe: recipes.some((one) => one.name === "quickstart") ? "quickstart" : recipes[0].name,
    model: "",
    free: "",
  });
  const [common, setCommon] = useState({});
  const [unread, setUnread] = useState(null);
  const recipe = recipes.find((one) => one.name === form.recipe);
  const set = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const [start, { busy, error }] = useDeed(async (overrides) => {
    const body = { dataset: form.dataset, recipe: form.recipe, overrides };
    if (form.labelled_dataset) body.labelled_dataset = form.labelled_dataset;
    if (form.model.trim()) body.model = form.model.trim();
    const job = await post("/v1/jobs", body);
    go(`/jobs/${job.id}`);
  });

  function submit(event) {
    event.preventDefault();
    let overrides = {};
    try {
      overrides = form.free.trim() ? JSON.parse(form.free) : {};
      setUnread(null);
    } catch (problem) {
      setUnread(`This is no JSON: ${problem.message}`);
      return;
    }
    if (typeof overrides !== "object" || overrides === null || Array.isArray(overrides)) {
      setUnread('Give an object, as {"seed": 7}.');
      return;
    }
    for (const path of [...COMMON.map(([one]) => one), HELD_OUT]) if (common[path]) write(overrides, path, Number(common[path]));
    start(overrides);
  }

  const wrong = wrongFields(error);
  const heldOut = Number(common[HELD_OUT]) || read(settings(form.free), HELD_OUT) || read(recipe, HELD_OUT);
  const { rows } = datasets.find((one) => one.id === form.dataset) || {};
  const few = rows <= heldOut && `It has ${number(rows)} rows, and ${number(heldOut)} are held out: one more is needed at least. Hold out fewer, or choose another.`;
  const choice = (label, name, hint, options, { none, warning, said = wrong.take(name) } = {}) => html`<${Field} label=${label} hint=${hint} error=${warning || said}>
    ${(given) => html`<select ...${given} value=${form[name]} onChange=${set(name)}>
      ${none && html`<option value="">${none}</option>`}
      ${options.map((one) => html`<option key=${one.id} value=${one.id}>${told(one)}</option>`)}
    </select>`}
  <//>`;
  const figure = ([path, label, hint]) => html`<${Field} key=${path} label=${label} hint=${hint} error=${wrong.take(`overrides.${path}`)}>
    ${(given) => html`<input ...${given} type="number" min="1" step="1" placeholder=${read(recipe, path) ?? "by epochs"} value=${common[path] || ""} onInput=${(event) => setCommon({ ...common, [path]: event.target.value })} />`}
  <//>`;
  const fields = html`
    <${Card} title="Data">
      <div class="row top first">
        ${choice("Dataset", "dataset", "The instructions that the judge learns on; no labels are needed.", of("instructions"), { warning: few })}
        ${figure([HELD_OUT, "Held out", "Rows of it that are set aside, to score versions on."])}
      </div>
      <div class="row top">
        ${choice("Labelled dataset", "labelled_dataset", "Optional: every version is scored on it, none is trained on it.", of("labelled"), { none: "none" })}
        <${Field} label="Model" hint=${`Name under which versions are registered; without one it is ${form.recipe}.`} error=${wrong.take("model")}>
          ${(given) => html`<input ...${given} autocomplete="off" placeholder=${form.recipe} value=${form.model} onInput=${set("model")} />`}
        <//>
      </div>
    <//>
    <${Card} title="Recipe">
      <${Field} label="Recipe" error=${wrong.take("recipe")}>
        ${(given) => html`<select ...${given} value=${form.recipe} onChange=${set("recipe")}>${recipes.map((one) => html`<option key=${one.name}>${one.name}</option>`)}</select>`}
      <//>
      <${Facts} pairs=${MAIN.map(([name, path]) => [name, String(read(recipe, path))])} />
      <h3>What to change in it</h3>
      <div class="row top">${COMMON.map(figure)}</div>
      <${Field} label="Other settings, as JSON" hint='Merged into the recipe, key by key, as {"seed": 7, "train": {"learning_rate": 0.0001}}.' error=${unread || wrong.rest("overrides")}>
        ${(given) => html`<textarea ...${given} class="mono" spellcheck="false" value=${form.free} onInput=${set("free")}></textarea>`}
      <//>
    <//>`;
  return html`<form onSubmit=${submit}>
    ${fields}
    ${error && !wrong.all && html`<${Trouble} error=${error} />`}
    <button class="primary" disabled=${busy}>${busy ? "Starting…" : "Start the job"}</button>
  </form>`;
}

// What the API found wrong, field by field: `take(name)` is the message of one, `rest(prefix)` those
// that no field has taken, and `all` says whether every one has a field.
function wrongFields(error) {
  const found = new Map();
  for (const one of error?.errors || []) found.set(one.field, one.message);
  if (error?.param && !found.has(error.param)) found.set(error.param, error.detail);
  const left = new Set(found.keys());
  return {
    take(name) {
      left.delete(name);
      return found.get(name);
    },
    rest(prefix) {
      const fitting = [...left].filter((name) => name === prefix || name.startsWith(`${prefix}.`));
      fitting.forEach((name) => left.delete(name));
      return fitting.map((name) => `${name}: ${found.get(name)}`).join("; ") || undefined;
    },
    get all() {
      return found.size > 0 && left.size === 0;
    },
  };
}
