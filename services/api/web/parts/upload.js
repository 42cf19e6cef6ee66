// Files to the gateway, one after the other: dropped or chosen, with progress, and told line by line
// what is wrong with one that was refused.

import { upload } from "../api.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { bytes, duration, number, percent } from "./format.js";
import { Chip, Field, Meter, Table } from "./ui.js";
import { to } from "../router.js";

const TYPES = {
  jsonl: "application/x-ndjson", ndjson: "application/x-ndjson", csv: "text/csv",
  txt: "text/plain", parquet: "application/vnd.apache.parquet",
};
const SUFFIXES = Object.keys(TYPES).map((one) => `.${one}`);
export const KINDS = {
  instructions: ["Instructions", "What a judge is taught from; no labels needed."],
  labelled: ["Labelled pairs", "To check versions with; never trained on."],
  pairs: ["Pairs", "Without labels, for people to review."],
  benchmark: ["Benchmark", "A file as its authors publish it: JSON, JSONL or Parquet."],
};

const suffix = (name) => name.toLowerCase().replace(/\.gz$/, "").split(".").at(-1);
const typeOf = (name, kind) => (kind === "benchmark" ? "application/x-ndjson" : TYPES[suffix(name)]);

// `onDone(dataset)` after each file that was kept.
export function Upload({ onDone }) {
  const [kind, setKind] = useState("instructions");
  const [name, setName] = useState("");
  const [column, setColumn] = useState("");
  const [over, setOver] = useState(false);
  const [sent, setSent] = useState([]);
  const running = useRef(null);
  const change = (id, what) => setSent((old) => old.map((one) => (one.id === id ? { ...one, ...what } : one)));

  function add(files) {
    const given = { kind, column, name };
    setSent((old) => [...old, ...[...files].map((file, at) => ({ id: `${Date.now()}-${at}`, file, ...given, name: files.length > 1 ? "" : name, state: "waiting" }))]);
    setName("");
  }

  const next = sent.find((one) => one.state === "waiting");
  useEffect(() => {
    if (!next || running.current) return;
    run(next);
  });
  useEffect(() => () => running.current?.abort(), []);

  async function run(one) {
    const type = typeOf(one.file.name, one.kind);
    if (!type) {
      change(one.id, { state: "failed", error: { message: `${one.file.name} ends with none of ${SUFFIXES.join(" ")} (or these with .gz).` } });
      return;
    }
    const began = performance.now();
    const query = { kind: one.kind, name: one.name || one.file.name, column: one.column };
    running.current = upload("/v1/datasets", query, one.file, type, (share) =>
      change(one.id, { share, rate: (share * one.file.size * 1000) / (performance.now() - began) }),
    );
    change(one.id, { state: "uploading", share: 0 });
    try {
      const dataset = await running.current.promise;
      change(one.id, { state: "done", dataset });
      onDone(dataset);
    } catch (error) {
      change(one.id, { state: error.code === "aborted" ? "stopped" : "failed", error });
    }
    running.current = null;
  }

  const stop = (one) => (one.state === "uploading" ? running.current?.abort() : change(one.id, { state: "stopped" }));
  const dropped = (event) => {
    event.preventDefault();
    setOver(false);
    add(event.dataTransfer.files);
  };
  return html`<div class="stack">
    <div class="row top">
      <${Field} label="Kind" hint=${KINDS[kind][1]}>
        ${(given) => html`<select ...${given} value=${kind} onChange=${(event) => setKind(event.target.value)}>
          ${Object.entries(KINDS).map(([value, [told]]) => html`<option key=${value} value=${value}>${told}</option>`)}
        </select>`}
      <//>
      <${Field} label="Name (optional)" hint="Else the file's.">
        ${(given) => html`<input ...${given} maxlength="200" value=${name} onInput=${(event) => setName(event.target.value)} />`}
      <//>
      ${kind !== "benchmark" && html`<${Field} label="Column (optional)" hint="That holds the instruction.">
        ${(given) => html`<input ...${given} maxlength="200" placeholder="instruction" value=${column} onInput=${(event) => setColumn(event.target.value)} />`}
      <//>`}
    </div>
    <div class=${`drop ${over ? "over" : ""}`} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${dropped}>
      <label class="button primary">Choose files
        <input class="visually-hidden" type="file" multiple onChange=${(event) => { add(event.target.files); event.target.value = ""; }} /></label>
      <span>or drop them here: <code>${SUFFIXES.join(" ")}</code>, gzipped or not</span>
    </div>
    ${sent.length > 0 && html`<ul class="sent">${sent.map((one) => html`<${Sent} key=${one.id} one=${one} stop=${() => stop(one)} />`)}</ul>`}
  </div>`;
}

const STATES = { waiting: ["dim", "waiting"], uploading: ["busy", "uploading"], checking: ["busy", "checking"], done: ["good", "kept"], failed: ["bad", "refused"], stopped: ["dim", "stopped"] };

function Sent({ one, stop }) {
  const sentAll = one.state === "uploading" && one.share === 1;
  const [kind, told] = STATES[sentAll ? "checking" : one.state];
  return html`<li>
    <div class="sent-line">
      <${Chip} kind=${kind}>${told}<//>
      <strong>${one.file.name}</strong><span class="note">${bytes(one.file.size)}</span>
      ${(one.state === "uploading" || one.state === "waiting") && html`<button class="small" onClick=${stop} aria-label=${`Stop ${one.file.name}`}>Stop</button>`}
      ${one.dataset && html`<a href=${to(`/datasets/${one.dataset.id}`)}>${number(one.dataset.rows)} ${one.dataset.rows === 1 ? "row" : "rows"}: open ${one.dataset.name}</a>`}
    </div>
    ${one.state === "uploading" && html`<div class="sent-line">
      <${Meter} value=${one.share} label=${`Upload of ${one.file.name}`} />
      <span class="note">${sentAll ? "Every line is being checked." : html`${percent(one.share, 0)}${one.rate > 0 && html` at ${bytes(one.rate)}/s, ${duration((one.file.size * (1 - one.share)) / one.rate)} left`}`}</span>
    </div>`}
    ${one.state === "failed" && html`<${Refusal} error=${one.error} name=${one.file.name} />`}
  </li>`;
}

// What is wrong with a file, line by line.
function Refusal({ error, name }) {
  const lines = (error.errors || []).filter((one) => one.line !== undefined).map((one, at) => ({ ...one, at }));
  const columns = [
    { name: "Line", cell: (one) => number(one.line) },
    { name: "Field", cell: (one) => (one.field ? html`<code>${one.field}</code>` : "–") },
    { name: "What is wrong", cell: (one) => one.message },
  ];
  return html`<div class="trouble" role="alert">
    <p><strong>${error.message}</strong></p>
    ${lines.length > 0 && html`<div class="lines"><${Table} caption=${`What is wrong with ${name}`} columns=${columns} rows=${lines} id=${(one) => one.at} /></div>`}
    ${(error.code || error.request_id) && html`<p class="note">${error.code && html`<code>${error.code}</code>`}${error.request_id && html` · request <code>${error.request_id}</code>`}</p>`}
  </div>`;
}
