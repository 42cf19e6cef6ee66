// Texts that models and people wrote: shown as they are, white space and all.

import { html, useState } from "../vendor/preact.js";
import { number } from "./format.js";

const LONG = 1500;

// A long one is cut until somebody asks for the rest.
export function Text({ text, label }) {
  const [whole, setWhole] = useState(false);
  if (!text) return html`<p class="note">(empty)</p>`;
  const cut = !whole && text.length > LONG + 200;
  return html`<div class="text">${cut ? `${text.slice(0, LONG)}…` : text}</div>
    ${cut && html`<button class="small" aria-label=${label && `All of ${label}`} onClick=${() => setWhole(true)}>All ${number(text.length)} characters</button>`}`;
}

// The conversation before an instruction.
export function Context({ messages }) {
  if (!messages?.length) return null;
  return html`<div class="context"><h3>Before it</h3>${messages.map((one, at) => html`<div key=${at}><p class="note">${one.role}</p><${Text} text=${one.content} /></div>`)}</div>`;
}

// Two responses beside each other: [{title, note, text, kind}].
export const Sides = ({ sides }) =>
  html`<div class="sides">${sides.map((one) => html`<div role="group" key=${one.title} class=${`panel ${one.kind || ""}`} aria-label=${one.title}>
    <h3>${one.title}${one.note && html` <span class="note">${one.note}</span>`}</h3><${Text} text=${one.text} label=${one.title} />
  </div>`)}</div>`;

export const VERDICTS = { A: "A is better", B: "B is better", tie: "tie", unparsable: "cannot be read" };
