// What pages read out of a job's iterations.

import { html } from "../vendor/preact.js";
import { to } from "../router.js";
import { Field } from "./ui.js";

const SETS = { heldout: "held-out pairs", labelled: "labelled pairs" };

// A set's name in words; further labelled sets are named by their dataset.
export const setName = (name) => SETS[name] || `labelled pairs of ${name.split("/")[1]}`;

// Names of the sets that the gate looked at, in any iteration; held-out pairs come first.
export function setsOf(iterations) {
  const found = new Set(iterations.flatMap(({ metrics }) => Object.keys(metrics).filter((name) => name === "heldout" || name.startsWith("labelled"))));
  return [...found].sort();
}

// [{x: iteration, y, low, high}] of a figure of a set.
export function points(iterations, set, figure, interval) {
  return iterations.flatMap(({ number, metrics }) => {
    const of = metrics[set];
    if (!of || typeof of[figure] !== "number") return [];
    const [low, high] = (interval && of[interval]) || [];
    return [{ x: number, y: of[figure], low, high }];
  });
}

// The iteration that the address names, or the newest of those that `fits`.
export function chosen(iterations, query, fits = () => true) {
  const fitting = iterations.filter(fits);
  return fitting.find((one) => String(one.number) === query.iteration) || fitting.at(-1);
}

const RULES = {
  first: "Nothing to beat", holder: "Holds the alias already", seed: "Is trained", margin: "At least as good on held-out pairs", labelled: "No worse on labelled pairs",
  position_bias: "Prefers no position", parse_failures: "Its verdicts can be read", reviews: "People agree with it",
};

// A rule of the gate as a sentence, and its code.
export const Rule = ({ of }) => (RULES[of] ? html`${RULES[of]} <code class="note">${of}</code>` : html`<code>${of}</code>`);

const STAGES = {
  register: "checks the base model", select: "chooses rows", label: "labels rows", choose: "applies quotas", pair: "makes response pairs", judge: "samples judgments",
  curate: "chooses training examples", train: "trains a version", validate: "scores it on pairs", gate: "decides on promotion", evaluate: "judges the examples",
  score: "adds up the scores", survey: "judges pairs for people", sample: "draws what people see", judge_batch: "judges the pairs",
};

// What a stage does.
export const purpose = (kind) => STAGES[kind] || "";

// A choice among iterations that is kept in the address.
export function Choice({ iterations, current, job, tab }) {
  if (iterations.length < 2) return null;
  const pick = (event) => {
    location.hash = to(`/jobs/${job.id}`, { tab: tab === "overview" ? undefined : tab, iteration: event.target.value });
  };
  return html`<${Field} label="Iteration">${(given) => html`<select ...${given} value=${current.number} onChange=${pick}>
    ${iterations.toReversed().map((one) => html`<option key=${one.number} value=${one.number}>${one.number === 0 ? "0 (the seed)" : one.number}</option>`)}
  </select>`}<//>`;
}

// "tour:2" -> the page of that version.
export function VersionLink({ version }) {
  const [name, number] = version.split(":");
  return html`<a href=${to(`/models/${encodeURIComponent(name)}/versions/${number}`)}>${version}</a>`;
}
