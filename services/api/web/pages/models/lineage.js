// Which version came from which: rails with a node for each version, newest first, as in a log of
// commits. A row is a link and says in words what its rails show.

import { ago, percent, time } from "../../parts/format.js";
import { to } from "../../router.js";
import { html, useMemo, useState } from "../../vendor/preact.js";
import { Aliases, failed, link, newest, outcome, split } from "./registry.js";

const ROW = 50; // pixels, as .lineage li has it
const LANE = 22;
const EDGE = 16;

// [{version, row, lane, parent}] with a lane for each branch: the line that leads to `latest` has
// the first, every other one the first that is free from its tip down to where it branched off.
export function layout(versions) {
  const ordered = versions.toSorted((a, b) => b.number - a.number);
  const nodes = new Map(ordered.map((version, row) => [version.ref, { version, row, lane: -1, parent: null }]));
  for (const node of nodes.values()) node.parent = nodes.get(node.version.parent) || null;
  const lanes = []; // of each the rows that are taken: [[from, to]]
  const free = (lane, from, to) => !(lanes[lane] || []).some(([a, b]) => from <= b && a <= to);
  function lay(tip) {
    const line = [];
    let node = tip;
    for (; node && node.lane < 0 && !line.includes(node); node = node.parent) line.push(node);
    if (!line.length) return;
    const last = node ? node.row - 1 : line.at(-1).row;
    let lane = 0;
    while (!free(lane, tip.row, last)) lane += 1;
    (lanes[lane] ||= []).push([tip.row, last]);
    for (const one of line) one.lane = lane;
  }
  const latest = [...nodes.values()].find((one) => one.version.aliases.includes("latest"));
  if (latest) lay(latest);
  for (const node of nodes.values()) lay(node);
  return { nodes: [...nodes.values()], lanes: lanes.length };
}

// A version, those that it came from, and those that came from it.
function family(nodes, ref) {
  const found = new Set();
  for (let node = nodes.find((one) => one.version.ref === ref); node && !found.has(node.version.ref); node = node.parent) found.add(node.version.ref);
  const below = new Set([ref]);
  for (const node of nodes.toReversed()) if (below.has(node.version.parent)) below.add(node.version.ref);
  return new Set([...found, ...below]);
}

const x = (lane) => EDGE + lane * LANE;
const y = (row) => row * ROW + ROW / 2;

function rail({ row, lane, parent }) {
  if (parent.lane === lane) return `M${x(lane)},${y(row)}V${y(parent.row)}`;
  const turn = y(parent.row) - ROW;
  return `M${x(lane)},${y(row)}V${Math.max(y(row), turn)}C${x(lane)},${y(parent.row) - ROW / 3} ${x(parent.lane)},${y(parent.row) - (2 * ROW) / 3} ${x(parent.lane)},${y(parent.row)}`;
}

export function Lineage({ versions, decisions }) {
  const { nodes, lanes } = useMemo(() => layout(versions), [versions]);
  const [seen, setSeen] = useState(null);
  const decided = newest(decisions);
  const lit = seen && family(nodes, seen);
  const dim = (node) => (lit && !lit.has(node.version.ref) ? "dim" : "");
  const width = 2 * EDGE + (lanes - 1) * LANE;
  return html`<div class="lineage" style=${{ "--rails": `${width}px` }}>
    <ul class="legend"><li><span class="dot promoted"></span>promoted</li><li><span class="dot refused"></span>refused</li><li><span class="dot none"></span>the gate was not asked</li></ul>
    <div class="scroll" tabindex="0" role="region" aria-label="Which version came from which">
      <div class="rails">
        <svg width=${width} height=${nodes.length * ROW} aria-hidden="true">
          ${nodes.filter((node) => node.parent).map((node) => html`<path key=${node.version.ref} class=${`s${node.lane % 6} ${dim(node)}`} d=${rail(node)} />`)}
          ${nodes.map((node) => html`<${Node} key=${node.version.ref} node=${node} kind=${outcome(decided.get(node.version.ref))} dim=${dim(node)} />`)}
        </svg>
        <ol reversed aria-label="Versions, newest first" onMouseLeave=${() => setSeen(null)}>
          ${nodes.map((node) => html`<${Row} key=${node.version.ref} node=${node} decision=${decided.get(node.version.ref)} dim=${dim(node)} onSee=${setSeen} />`)}
        </ol>
      </div>
    </div>
  </div>`;
}

function Node({ node, kind, dim }) {
  const { aliases } = node.version;
  const r = aliases.length ? 8 : 6;
  return html`<g class=${`node ${kind} ${dim}`}>
    ${aliases.includes("latest") && html`<circle class="halo" cx=${x(node.lane)} cy=${y(node.row)} r="12" />`}
    <circle cx=${x(node.lane)} cy=${y(node.row)} r=${r} />
    ${kind === "refused" && html`<path d=${`M${x(node.lane) - 3},${y(node.row) - 3}l6,6m0,-6l-6,6`} />`}
  </g>`;
}

function Row({ node, decision, dim, onSee }) {
  const { version, parent } = node;
  const { job, iteration, lineage, metrics, aliases } = version;
  const state = outcome(decision);
  const rules = decision && state !== "promoted" ? ` (${[...new Set(failed(decision).map((one) => one.rule))].join(", ").replaceAll("_", " ")})` : "";
  const came = version.parent ? `from ${parent ? `:${split(version.parent)[1]}` : version.parent}` : "a base model";
  const made = [came, { none: null, promoted: "promoted", forced: "forced", refused: "refused" }[state] && `${state}${rules}`];
  const from = [job && `${iteration ? `iteration ${iteration} of ` : ""}job …${job.slice(-6)}`, lineage.dataset?.id && `dataset …${lineage.dataset.id.slice(-6)}`];
  const see = () => onSee(version.ref);
  return html`<li class=${dim} onMouseEnter=${see} onFocusIn=${see} onFocusOut=${() => onSee(null)}>
    <span class="name"><a href=${to(link(version.model, "versions", version.number))}>${version.ref}</a> <${Aliases} names=${aliases} /></span>
    <span class="score">${percent(metrics.heldout?.strict_accuracy)}</span>
    <span class="story">${made.filter(Boolean).join(" · ")}<br /><span class="note">${from.filter(Boolean).join(" · ")}</span></span>
    <span class="note when" title=${time(version.created_at)}>${ago(version.created_at)}</span>
  </li>`;
}
