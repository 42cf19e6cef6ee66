// A version's answer to a pair: asked for, shown while it is written, and held against another's.

import { post, Problem, stream } from "../api.js";
import { html, useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { Bars } from "./charts.js";
import { duration, number, percent } from "./format.js";
import { Text, VERDICTS } from "./texts.js";
import { Card, Chip, Facts, Trouble } from "./ui.js";

const NOTHING = { asked: null, busy: false, start: null, texts: {}, verdict: null, error: null };

// [state, ask(version, asked, options), forget()]: {asked, busy, start, texts by order, verdict, error}.
export function useAnswer() {
  const [state, setState] = useState(NOTHING);
  const running = useRef(null);
  const ask = useCallback(async (version, asked, options) => {
    running.current?.abort();
    const mine = (running.current = new AbortController());
    const set = (change) => running.current === mine && setState((old) => ({ ...old, ...change(old) }));
    setState({ ...NOTHING, asked: version, busy: true });
    const events = {
      start: (data) => set(() => ({ start: data })),
      delta: (data) => set((old) => ({ texts: { ...old.texts, [data.order]: (old.texts[data.order] || "") + data.text } })),
      restart: (data) => set((old) => ({ texts: { ...old.texts, [data.order]: "" } })),
      verdict: (data) => set(() => ({ verdict: data, busy: false })),
      error: (data) => set(() => ({ error: new Problem(data.status, data), busy: false })),
    };
    try {
      const body = question(version, asked, options);
      if (body.stream) await stream("/judge", { method: "POST", body, signal: mine.signal, onEvent: (name, data) => events[name]?.(data) });
      else events.verdict(await post("/judge", body, { signal: mine.signal }));
      set((old) => (old.busy ? { busy: false, error: new Problem(0, { detail: "The answer broke off." }) } : {}));
    } catch (error) {
      if (error.name !== "AbortError") set(() => ({ error, busy: false }));
    }
  }, []);
  const forget = useCallback(() => {
    running.current?.abort();
    running.current = null;
    setState(NOTHING);
  }, []);
  useEffect(() => () => running.current?.abort(), []);
  return [state, ask, forget];
}

// The body of POST /judge. One vote is streamed.
function question(version, asked, options) {
  const votes = Number(options.votes);
  const before = [...(asked.system.trim() ? [{ role: "system", content: asked.system }] : []), ...asked.context];
  const told = before.length ? { messages: [...before, { role: "user", content: asked.instruction }] } : { instruction: asked.instruction };
  return {
    ...told,
    response_a: asked.a,
    response_b: asked.b,
    ...(version ? { model: version } : {}),
    votes,
    both_orders: options.both,
    allow_tie: options.tie,
    explain: options.explain,
    stream: votes === 1,
    ...(options.template ? { template: options.template } : {}),
  };
}

const LETTERS = { A: "A", B: "B", tie: "Tie", unparsable: "?" };
const SHOWN = { AB: "A shown first", BA: "B shown first" };

export function Answer({ state, retry }) {
  const { asked, busy, start, texts, verdict, error } = state;
  const model = verdict?.model || start?.model;
  const named = model && model !== asked ? (asked ? `${asked} is ${model}` : model) : asked || "latest";
  const orders = verdict?.orders.map((one) => one.order) || start?.orders || [];
  return html`<${Card} title=${named} note=${verdict ? `template ${verdict.template}` : busy ? (start ? "writes" : "is asked") : ""}>
    ${verdict && html`<${Verdict} of=${verdict} />`}
    ${error && html`<${Trouble} error=${error} retry=${retry} />${error.retryAfter && html`<p class="note">It asks to be tried again in ${duration(error.retryAfter)}.</p>`}`}
    ${busy && !start && html`<p class="loading" role="status">Waiting for the version…</p>`}
    ${orders.map((order) => {
      const found = verdict?.orders.find((one) => one.order === order);
      const text = found?.reasoning || texts[order];
      return html`<div role="group" key=${order} class="order" aria-label=${`${asked}, ${SHOWN[order]}`}>
        <h3>${SHOWN[order]} ${found ? html`<${Chip} kind=${found.verdict === "unparsable" ? "warn" : "dim"}>${VERDICTS[found.verdict]}<//>` : html`<span class="note">writing…</span>`}</h3>
        ${order === "BA" && text && html`<p class="note">In its text, A and B are swapped: [[B]] is your A.</p>`}
        ${text && html`<div class="reasoning"><${Text} text=${text} /></div>`}
        ${found && found.share < 1 && html`<p class="note">${percent(found.share, 0)} of its votes</p>`}
      </div>`;
    })}
  <//>`;
}

function Verdict({ of }) {
  const p = of.probability;
  return html`
    <p class="verdict" role="status"><span class="verdict-letter">${LETTERS[of.verdict]}</span> <span>${VERDICTS[of.verdict]}${of.orders_agree === false ? "; its two orders differ" : ""}</span></p>
    ${p && html`<${Bars} caption="How likely each verdict is" told=${(value) => percent(value)} rows=${[{ name: "A is better", value: p.a }, { name: "B is better", value: p.b }, { name: "tie", value: p.tie }]} />`}
    <${Facts} pairs=${[
      ["Confidence", percent(of.confidence, 0)],
      ["Both orders", of.orders_agree === null ? "one was asked" : of.orders_agree ? "agree" : "differ"],
      ["Took", of.cached ? `${duration(of.latency.total)} (from the cache)` : duration(of.latency.total)],
      ["Tokens", `${number(of.prompt_tokens)} read, ${number(of.completion_tokens)} written`],
      of.parse_failures > 0 && ["Could not be read", `${number(of.parse_failures)} votes`],
      of.canary && ["Canary", "its version answered"],
      p && !p.calibrated && ["Probability", "not calibrated"],
    ]} />`;
}

// Whether two versions say the same.
export function Between({ answers }) {
  const [one, other] = answers.map((state) => state.verdict);
  if (!one || !other) return null;
  const same = one.verdict === other.verdict;
  return html`<p class=${`between ${same ? "good" : "warn"}`} role="status">${same
    ? `${one.model} and ${other.model} agree: ${VERDICTS[one.verdict]}.`
    : `They differ: ${one.model} says “${VERDICTS[one.verdict]}”, ${other.model} says “${VERDICTS[other.verdict]}”.`}</p>`;
}
