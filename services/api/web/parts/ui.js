// The pieces that every page is made of.

import { createContext, html, useContext, useEffect, useId, useRef, useState } from "../vendor/preact.js";
import { ago, time } from "./format.js";

export const Caller = createContext(null);
// {project, key, scopes, operator, version}: who looks, and what they may do.
export const useCaller = () => useContext(Caller);
export const useMay = (scope) => useCaller().scopes.includes(scope);

// A page's heading takes the focus when the page is opened, so that screen readers say it.
export function Page({ title, lead, actions, crumbs = [], children }) {
  const heading = useRef(null);
  useEffect(() => {
    document.title = `${title} · selftaught`;
    heading.current?.focus({ preventScroll: true });
  }, [title]);
  return html`
    ${crumbs.length > 0 &&
    html`<nav class="crumbs" aria-label="Breadcrumbs"><ol>${crumbs.map(([name, href]) => html`<li key=${href}><a href=${href}>${name}</a></li>`)}<li aria-current="page">${title}</li></ol></nav>`}
    <header class="page-head">
      <div><h1 tabindex="-1" ref=${heading}>${title}</h1>${lead && html`<p class="lead">${lead}</p>`}</div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </header>
    ${children}
  `;
}

export function Card({ title, note, actions, children, class: extra = "" }) {
  const id = useId();
  return html`<section class=${`card ${extra}`} aria-labelledby=${title ? id : undefined}>
    ${title &&
    html`<header class="card-head"><h2 id=${id}>${title}</h2>${note && html`<p class="note">${note}</p>`}${actions && html`<div class="actions">${actions}</div>`}</header>`}
    ${children}
  </section>`;
}

const KINDS = {
  succeeded: "good", completed: "good", enabled: "good", delivered: "good", ready: "good", ok: "good",
  running: "busy", pending: "busy", in_progress: "busy", pausing: "warn", paused: "warn", cancelling: "warn", watch: "warn",
  failed: "bad", cancelled: "dim", disabled: "dim", revoked: "dim", expired: "dim", alarm: "bad",
};

// A state in words, with a colour beside it and never alone.
export const Chip = ({ state, kind, children }) =>
  html`<span class=${`chip ${kind || KINDS[state] || "dim"}`}>${children || state}</span>`;

export const Meter = ({ value, label }) => {
  const whole = Math.round(100 * Math.max(0, Math.min(1, value || 0)));
  return html`<span class="meter" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${whole}><span style=${{ width: `${whole}%` }}></span></span>`;
};

export const When = ({ at }) => html`<time datetime=${at} title=${time(at)}>${ago(at)}</time>`;

export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;

export const Loading = () => html`<p class="loading" role="status">Loading…</p>`;

// What went wrong, what of it one can mend, and the id that an operator finds it by.
export function Trouble({ error, retry }) {
  if (!error) return null;
  const errors = error.errors || [];
  return html`<div class="trouble" role="alert">
    <p><strong>${error.message || error.detail}</strong></p>
    ${errors.length > 1 &&
    html`<ul>${errors.slice(0, 20).map((one) => html`<li>${one.line !== undefined && html`line ${one.line}, `}<code>${one.field}</code>: ${one.message}</li>`)}</ul>`}
    <p class="note">${error.code && html`<code>${error.code}</code>`}${error.request_id && html` · request <code>${error.request_id}</code>`}</p>
    ${retry && html`<button onClick=${retry}>Try again</button>`}
  </div>`;
}

// What a load gives: the trouble, the wait, or the page. Old data stays while the gateway is away.
export function Loaded({ of, children }) {
  if (of.data === null || of.data === undefined) return of.error ? html`<${Trouble} error=${of.error} retry=${of.reload} />` : html`<${Loading} />`;
  return html`${of.error && html`<p class="stale" role="status">Not up to date: ${of.error.message}</p>`}${children(of.data)}`;
}

// columns: [{name, cell(row), number}]. Of the class "stacks": on a phone a row's cells stand below each other.
export function Table({ caption, columns, rows, id = (row) => row.id, class: extra = "" }) {
  return html`<div class=${`scroll ${extra}`} tabindex="0" role="region" aria-label=${caption}><table>
    <caption class="visually-hidden">${caption}</caption>
    <thead><tr>${columns.map((one) => html`<th scope="col" class=${one.number ? "number" : ""}>${one.name}</th>`)}</tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr key=${id(row)}>${columns.map((one, at) =>
        at === 0 ? html`<th scope="row">${one.cell(row)}</th>` : html`<td data-name=${extra ? one.name : undefined} class=${one.number ? "number" : ""}>${one.cell(row)}</td>`,
      )}</tr>`,
    )}</tbody>
  </table></div>`;
}

// pairs: [[name, value]]
export const Facts = ({ pairs }) =>
  html`<dl class="facts">${pairs.filter(Boolean).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

// A labelled input: `control` gets the id that the label and the hint point to.
export function Field({ label, hint, error, children }) {
  const id = useId();
  const told = hint || error ? `${id}-told` : undefined;
  return html`<div class=${`field ${error ? "wrong" : ""}`}>
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": told, "aria-invalid": error ? "true" : undefined })}
    ${told && html`<p class="hint" id=${told}>${error || hint}</p>`}
  </div>`;
}

// A question before something that cannot be undone, or a form. Escape closes it.
export function Dialog({ title, open, onClose, children }) {
  const box = useRef(null);
  const id = useId();
  useEffect(() => {
    if (open && !box.current.open) box.current.showModal();
    if (!open && box.current.open) box.current.close();
  }, [open]);
  return html`<dialog ref=${box} aria-labelledby=${id} onCancel=${onClose}>
    <header><h2 id=${id}>${title}</h2><button class="quiet" aria-label="Close" onClick=${onClose}>✕</button></header>
    ${open && children}
  </dialog>`;
}

// A short word about what was done, read out by screen readers.
export function tell(text, kind = "good") {
  dispatchEvent(new CustomEvent("tell", { detail: { text, kind } }));
}

export function Toasts() {
  const [told, setTold] = useState([]);
  useEffect(() => {
    function add(event) {
      const one = { id: Math.random(), ...event.detail };
      setTold((old) => [...old.slice(-2), one]);
      setTimeout(() => setTold((old) => old.filter((other) => other.id !== one.id)), 6000);
    }
    addEventListener("tell", add);
    return () => removeEventListener("tell", add);
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite">${told.map((one) => html`<p key=${one.id} class=${`toast ${one.kind}`}>${one.text}</p>`)}</div>`;
}

export function Copy({ text, label = "Copy" }) {
  async function copy() {
    await navigator.clipboard.writeText(text);
    tell("Copied.");
  }
  return html`<button class="small" onClick=${copy}>${label}</button>`;
}

// tabs: [[name, label]]
export const Tabs = ({ tabs, chosen, href }) =>
  html`<nav class="tabs" aria-label="Parts of this page">${tabs.map(([name, label]) => html`<a key=${name} href=${href(name)} aria-current=${name === chosen ? "page" : undefined}>${label}</a>`)}</nav>`;
