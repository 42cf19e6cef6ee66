// What a judge said of a pair, order by order, and what became of each judgment.

import { html, useState } from "../vendor/preact.js";
import { number } from "./format.js";
import { Card, Chip } from "./ui.js";
import { Text } from "./texts.js";

// fate: [in short, colour, the reason]
const FATES = {
  kept: ["kept", "good", "it is a training example"],
  wrong: ["wrong", "bad", "its verdict is not the better response"],
  tie: ["tie", "bad", "a tie names neither response"],
  unparsable: ["unparsable", "warn", "no verdict could be read in it"],
  no_label: ["no label", "dim", "the judge had no majority to follow"],
  min_share: ["too few right", "dim", "too small a share of this order's judgments was right (curate.min_share)"],
  other_order: ["other order", "dim", "the other order has none to keep (curate.both_orders)"],
  disagree: ["no common answer", "dim", "no two judgments of the two orders reason from the same answer (curate.agree)"],
  other_answer: ["other answer", "dim", "it reasons from another answer than the one drawn (curate.agree)"],
  not_drawn: ["not drawn", "dim", "right, but another one of this order was drawn (curate.per_input)"],
  balance: ["balance", "dim", "right and drawn, but its letter had more than the other (curate.balance)"],
};
const SHOWN = { A: "A", B: "B", tie: "tie", unparsable: "none" };
const RIGHT = new Set(["kept", "min_share", "other_order", "disagree", "other_answer", "not_drawn", "balance"]);

export const Orders = ({ orders }) =>
  html`<div class="orders">${orders.map((one) => {
    const right = one.judgments.filter((judgment) => RIGHT.has(judgment.fate)).length;
    const shown = one.order === "AB" ? "better response shown as A" : "better response shown as B";
    return html`<${Card} key=${one.order} title=${`Order ${one.order}`} note=${`${shown} · ${right} of ${one.judgments.length} right · majority: ${SHOWN[one.verdict]}`}>
      <ol class="judgments">${one.judgments.map((judgment) => html`<li key=${judgment.sample}><${Judgment} one=${judgment} order=${one.order} /></li>`)}</ol>
    <//>`;
  })}</div>`;

function Judgment({ one, order }) {
  const [open, setOpen] = useState(false);
  const [name, kind, reason] = FATES[one.fate];
  return html`<div class="judgment">
    <span class=${`letter ${RIGHT.has(one.fate) ? "right" : ""}`}>${SHOWN[one.verdict]}</span>
    <span class="why"><${Chip} kind=${kind}>${name}<//> <span class="note">${reason}${one.preferred && `; ${one.preferred} in a preference pair`}${one.finish_reason === "length" ? "; cut off" : ""}</span></span>
    <button class="small" aria-expanded=${open} aria-label=${`Reasoning of judgment ${one.sample + 1}, order ${order}`} onClick=${() => setOpen(!open)}>${open ? "Hide" : "Reasoning"}</button>
    ${open && html`<div class="reasoning"><${Text} text=${one.text} /><p class="note">sample ${one.sample}, ${number(one.completion_tokens)} tokens</p></div>`}
  </div>`;
}
