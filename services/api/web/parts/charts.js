// Charts as SVG: they scale, follow the theme, and each has its figures as a table beside it.

import { html, useId } from "../vendor/preact.js";
import { useWidth } from "./hooks.js";
import { Table } from "./ui.js";

const WIDTH = 540; // until it is known how wide there is room
const HEIGHT = 260;
const MARKED = 24; // points of a line that are marked, with their whiskers; of more the line alone is seen
const BANDS = 2; // more of them hide each other: then the whiskers alone tell
const MARGIN = { top: 12, right: 16, bottom: 34, left: 60 };

// About `count` round numbers from low to high.
export function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

// series: [{name, points: [{x, y, low, high, part}]}] (low and high: an interval, drawn as a band and
// whiskers; part: the line breaks where it changes). `reference`: {y, name}, a dashed line. `told(y)` writes a value.
export function LineChart({ title, x, y, series, told = String, toldX = String, reference, range }) {
  const id = useId();
  const [box, width] = useWidth(WIDTH);
  const drawn = series.map((one, at) => ({ ...one, at, points: one.points.filter((p) => Number.isFinite(p.y)) }));
  const points = drawn.flatMap((one) => one.points);
  if (points.length === 0) return html`<p class="note">Nothing to draw yet.</p>`;
  const xs = points.map((p) => p.x);
  const ys = points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]).concat(reference ? [reference.y] : []);
  let [low, high] = range || [Math.min(...ys), Math.max(...ys)];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  if (!range) [low, high] = [low - room, high + room];
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const marked = drawn.every((one) => one.points.length <= MARKED);
  const beside = marked && points.some((p) => Number.isFinite(p.low)) ? 4 : 0; // pixels between whiskers at one x
  const inset = ((drawn.length - 1) / 2) * beside;
  const left = (value) => MARGIN.left + inset + ((value - first) / (last - first || 1)) * (width - MARGIN.left - MARGIN.right - 2 * inset);
  const top = (value) => HEIGHT - MARGIN.bottom - ((value - low) / (high - low || 1)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const wholeX = xs.every(Number.isInteger);
  const marks = ticks(first, last, Math.min(width < 480 ? 5 : 8, Math.max(1, last - first))).filter((one) => !wholeX || Number.isInteger(one));
  const parts = (list) => list.reduce((found, p, at) => (at && p.part === list[at - 1].part ? found.at(-1).push(p) : found.push([p]), found), []);
  const path = (list) => parts(list).map((part) => part.map((p, at) => `${at ? "L" : "M"}${left(p.x).toFixed(1)},${top(p.y).toFixed(1)}`).join("") + (part.length === 1 ? "h0" : "")).join("");
  const area = (list) =>
    `${list.map((p, at) => `${at ? "L" : "M"}${left(p.x).toFixed(1)},${top(p.high).toFixed(1)}`).join("")}${list.toReversed().map((p) => `L${left(p.x).toFixed(1)},${top(p.low).toFixed(1)}`).join("")}Z`;
  const band = (list) => parts(list).map(area).join("");
  return html`<figure class="chart" ref=${box}>
    <figcaption id=${id}>${title}</figcaption>
    ${drawn.length > 1 && html`<ul class="legend">${drawn.map((one) => html`<li><span class=${`swatch s${one.at % 6}`}></span>${one.name}</li>`)}</ul>`}
    <svg viewBox=${`0 0 ${width} ${HEIGHT}`} role="img" aria-labelledby=${id}>
      ${ticks(low, high).map((one) => html`<g class="grid"><line x1=${MARGIN.left} x2=${width - MARGIN.right} y1=${top(one)} y2=${top(one)} /><text x=${MARGIN.left - 8} y=${top(one) + 4} text-anchor="end">${told(one)}</text></g>`)}
      ${marks.map((one) => html`<text x=${left(one)} y=${HEIGHT - MARGIN.bottom + 18} text-anchor="middle">${toldX(one)}</text>`)}
      <text class="axis" x=${width - MARGIN.right} y=${HEIGHT - 4} text-anchor="end">${x}</text>
      ${reference && html`<g class="reference"><line x1=${MARGIN.left} x2=${width - MARGIN.right} y1=${top(reference.y)} y2=${top(reference.y)} /></g>`}
      ${drawn.map((one) => {
        const ranged = one.points.filter((p) => Number.isFinite(p.low) && Number.isFinite(p.high));
        // Whiskers at one place would hide each other, too.
        const aside = one.at * beside - inset;
        return html`<g class=${`series s${one.at % 6}`} transform=${`translate(${aside} 0)`}>
          ${ranged.length > 1 && drawn.length <= BANDS && html`<path class="band" d=${band(ranged)} />`}
          ${marked && ranged.map((p) => html`<line class="whisker" x1=${left(p.x)} x2=${left(p.x)} y1=${top(p.low)} y2=${top(p.high)} />`)}
          <path class="line" d=${path(one.points)} />
          ${marked && one.points.map((p) => html`<circle cx=${left(p.x)} cy=${top(p.y)} r="3.5"><title>${one.name}, ${x} ${toldX(p.x)}: ${told(p.y)}${Number.isFinite(p.low) ? ` (${told(p.low)} to ${told(p.high)})` : ""}</title></circle>`)}
        </g>`;
      })}
    </svg>
    <${Figures} title=${title} x=${x} y=${y} series=${drawn} told=${told} toldX=${toldX} />
  </figure>`;
}

function Figures({ title, x, y, series, told, toldX }) {
  const at = [...new Set(series.flatMap((one) => one.points.map((p) => p.x)))].sort((a, b) => a - b);
  if (at.length > 200) return null;
  const cell = (one, value) => {
    const p = one.points.find((found) => found.x === value);
    return p ? `${told(p.y)}${Number.isFinite(p.low) ? ` (${told(p.low)} to ${told(p.high)})` : ""}` : "–";
  };
  const columns = [{ name: x, cell: toldX }, ...series.map((one) => ({ name: series.length > 1 ? one.name : y, number: true, cell: (value) => cell(one, value) }))];
  return html`<details class="figures"><summary>The figures</summary><${Table} caption=${title} columns=${columns} rows=${at} id=${String} /></details>`;
}

// rows: [{name, value, note, kind}]: bars as long as their values, the longest fills the width.
export function Bars({ caption, rows, told = String }) {
  const most = Math.max(1, ...rows.map((one) => one.value));
  return html`<div class="bars" role="table" aria-label=${caption}>${rows.map(
    (one) => html`<div role="row" class=${`bar ${one.kind || ""}`}>
      <span role="rowheader" class="bar-name">${one.name}</span>
      <span role="cell" class="bar-track"><span style=${{ width: `${(100 * one.value) / most}%` }}></span></span>
      <span role="cell" class="bar-value">${told(one.value)}${one.note && html` <span class="note">${one.note}</span>`}</span>
    </div>`,
  )}</div>`;
}
