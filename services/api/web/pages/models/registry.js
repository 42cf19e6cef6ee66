// What the registry's pages share: addresses, how a version's figures and state are told.

import { all, get } from "../../api.js";
import { percent, words } from "../../parts/format.js";
import { Rule } from "../../parts/iterations.js";
import { Chip } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html } from "../../vendor/preact.js";

export const MOST_VERSIONS = 200;

const escaped = (parts) => parts.map((one) => `/${encodeURIComponent(one)}`).join("");
// Of the API: api("tour", "aliases", "latest")
export const api = (name, ...parts) => `/v1/models${escaped([name, ...parts])}`;
// Of a page: link("tour", "versions", 2)
export const link = (name, ...parts) => `/models${escaped([name, ...parts])}`;

// "tour:2" -> ["tour", 2]
export function split(ref) {
  const at = ref.lastIndexOf(":");
  return [ref.slice(0, at), Number(ref.slice(at + 1))];
}

export const Ref = ({ of, short }) => {
  const [name, number] = split(of);
  return html`<a href=${to(link(name, "versions", number))}>${short ? `:${number}` : of}</a>`;
};

// Everything about a model; of very many versions the newest.
export async function loadModel(name, signal) {
  const versions = await all(api(name, "versions"), {}, "number", MOST_VERSIONS);
  const decisions = await all(api(name, "promotions"), {}, "id", 2 * MOST_VERSIONS);
  const { data: canaries } = await get("/v1/canaries", { model: name, limit: 50 }, signal);
  return { versions: versions.slice(0, MOST_VERSIONS), decisions, canaries };
}

// "heldout" -> "held-out", "labelled/ds_1" -> "labelled, ds_1"
export const setName = (set) => set.replace("heldout", "held-out").replace("labelled/", "labelled, ");

// Of all versions, heldout first.
export function setsOf(versions) {
  const found = new Set(versions.flatMap((one) => Object.keys(one.metrics)));
  return [...found].sort((a, b) => (b === "heldout") - (a === "heldout") || a.localeCompare(b));
}

export const Accuracy = ({ of }) =>
  of?.strict_accuracy === undefined || of.strict_accuracy === null
    ? "–"
    : html`<span class="nowrap">${percent(of.strict_accuracy)}</span>${of.ci95 && html` <span class="note nowrap">${(100 * of.ci95[0]).toFixed(0)} to ${percent(of.ci95[1], 0)}</span>`}`;

export const Aliases = ({ names }) => names.map((one) => html`<span class=${`flag ${one === "latest" ? "lead" : ""}`} key=${one}>${one}</span> `);

// Newest decision about each version, by its ref.
export function newest(decisions) {
  const found = new Map();
  for (const one of decisions) if (!found.has(one.version)) found.set(one.version, one);
  return found;
}

export const failed = (decision) => decision.findings.filter((one) => !one.passed);

// "promoted", "forced", "refused", or none was asked for.
export const outcome = (decision) => (!decision ? "none" : decision.forced ? "forced" : decision.promoted ? "promoted" : "refused");
const KINDS = { promoted: "good", forced: "warn", refused: "bad", none: "dim" };

// What became of a version that once was what an alias named, by the reason of the move that followed:
// null while it is, or if it never was.
export function fallen(alias, ref) {
  if (!alias || alias.version === ref) return null;
  const at = alias.history.findIndex((one) => one.version === ref); // newest first
  if (at < 1) return null;
  const next = alias.history[at - 1];
  const now = `:${split(next.version)[1]}`;
  return next.reason === "rollback" ? { told: `rolled back to ${now}`, kind: "warn" } : { told: `replaced by ${now}`, kind: "dim", why: next.reason };
}

export function Decision({ of, then }) {
  const state = outcome(of);
  if (state === "none") return html`<span class="note">not asked</span>`;
  const rules = state === "promoted" ? "" : [...new Set(failed(of).map((one) => words(one.rule)))].join(", ");
  return html`<${Chip} kind=${KINDS[state]}>${state}<//>${rules && html` <span class="note">${rules}</span>`}${then && html` <${Chip} kind=${then.kind}>${then.told}<//>${then.why && html` <span class="note"><${Why} reason=${then.why} /></span>`}`}`;
}

// Why an alias moved; a job in it is a link.
export function Why({ reason }) {
  const job = /^(gate of|registered by) (job_\w+)$/.exec(reason);
  return job ? html`${job[1]} <a class="nowrap" title=${job[2]} href=${to(`/jobs/${job[2]}`)}>…${job[2].slice(-6)}</a>` : reason;
}

// What each rule of the gate said, with its figures.
export const Findings = ({ of }) => html`<ul class="findings">${of.map(
  (one) => html`<li key=${one.detail}><${Chip} kind=${one.passed ? "good" : "bad"}>${one.passed ? "passed" : "failed"}<//>
    <span><strong><${Rule} of=${one.rule} /></strong>${one.set && html` · ${setName(one.set)}`}<br /><span class="note">${one.detail.replace(/: (passed|failed)$/, "")}</span></span></li>`,
)}</ul>`;

// Where a rollback leads: the version before the present one. Coming back to a version undoes all
// that followed it (as selftaught/aliases.py has it); `history` is newest first. Null: nowhere.
export function before(history) {
  const trail = [];
  for (const { version } of history.toReversed()) {
    const at = trail.indexOf(version);
    if (at >= 0) trail.length = at + 1;
    else trail.push(version);
  }
  return trail.at(-2) ?? null;
}

export const latestFirst = (aliases) => aliases.toSorted((a, b) => (b.alias === "latest") - (a.alias === "latest") || a.alias.localeCompare(b.alias));
