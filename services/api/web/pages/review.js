// A version's review queue: a pair at a time, by keyboard, blind; and what all answers come to.
//
// Blind means: until the answer is given, this page has asked for nothing but the pair. The summary
// and the answers of others are loaded when their tabs are opened.

import { get, post } from "../api.js";
import { percent } from "../parts/format.js";
import { useDeed, useLoad } from "../parts/hooks.js";
import { useKeys } from "../parts/keys.js";
import { FillQueue } from "../parts/fill.js";
import { Answers, Summary } from "../parts/agreement.js";
import { reviewer } from "../parts/reviewer.js";
import { Context, Sides, Text, VERDICTS } from "../parts/texts.js";
import { Card, Chip, Dialog, Empty, Field, Loaded, Loading, Meter, Page, Tabs, Trouble, useMay } from "../parts/ui.js";
import { to } from "../router.js";
import { html, useRef, useState } from "../vendor/preact.js";

export default function Review({ params, query }) {
  const ref = `${params.model}:${params.number}`;
  const at = `/reviews/${params.model}/${params.number}`;
  const tab = query.tab || "review";
  const tabs = [["review", "Review"], ["summary", "Summary"], ["answers", "Answers"]];
  const part = { review: Queue, summary: Summary, answers: Answers }[tab] || Queue;
  return html`<${Page} title=${`Reviews of ${ref}`} crumbs=${[["Reviews", to("/reviews")]]}>
    <${Tabs} tabs=${tabs} chosen=${tab} href=${(name) => to(at, { tab: name })} />
    <${part} model=${params.model} number=${params.number} version=${ref} />
  <//>`;
}

// Whether its queue was ever filled, by the jobs that fill queues: these tell nothing of a pair.
async function isFilled(model, version, signal) {
  const { data, has_more: more } = await get("/v1/jobs", { kind: "review", model, limit: 100 }, signal);
  return more || data.some((one) => one.recipe.ref === version && !["failed", "cancelled"].includes(one.state));
}

function Queue({ model, number, version }) {
  const [name, setName] = useState(reviewer.get());
  const [typed, setTyped] = useState(name);
  const mayWrite = useMay("write");
  const filled = useLoad((signal) => (name ? true : isFilled(model, version, signal)), [version, name]);
  if (!mayWrite) return html`<${Card}><${Empty} title="This key may look, not answer"><p>Reviewing needs the scope write.</p><//><//>`;
  if (!name && filled.data === null && !filled.error) return html`<${Loading} />`;
  if (!name && filled.data === false) {
    return html`<${Card}><${Empty} title="The queue is empty"><p>Fill it: a job judges pairs and draws some of them for people.</p><//><//><${FillQueue} model=${model} number=${number} onFilled=${filled.reload} first />`;
  }
  if (!name) {
    return html`<form class="card" onSubmit=${(event) => { event.preventDefault(); reviewer.set(typed.trim()); setName(typed.trim()); }}>
      <${Field} label="Your name" hint="Any, and always the same: nobody gets a pair twice. This tab remembers it.">
        ${(given) => html`<input ...${given} required maxlength="200" pattern=".*\\S.*" autocomplete="username" value=${typed} onInput=${(event) => setTyped(event.target.value)} />`}
      <//><button class="primary">Begin</button></form>`;
  }
  const another = () => { reviewer.set(""); setName(""); };
  return html`<${Desk} key=${name} model=${model} number=${number} version=${version} name=${name} another=${another} />`;
}

// One pair on the desk: the next one, the reviewer's answer, what the model said.
function Desk({ model, number, version, name, another }) {
  const next = useLoad((signal) => get("/v1/reviews/next", { version, reviewer: name }, signal), [version, name]);
  const [done, setDone] = useState(0);
  const [told, setTold] = useState(null); // what the model said, once the answer is given
  const [comment, setComment] = useState("");
  const [help, setHelp] = useState(false);
  const [over, setOver] = useState(null); // the pair that is done with, while the next one is fetched
  const box = useRef(null);
  const item = next.data?.item;
  const waiting = item && item.id === over;
  const left = next.data ? next.data.left - (told || waiting ? 1 : 0) : null;

  const [answer, answered] = useDeed(async (verdict) => {
    const body = { reviewer: name, verdict, ...(comment.trim() ? { comment: comment.trim() } : {}) };
    setTold(await post(`/v1/reviews/${item.id}/answers`, body));
    setDone((n) => n + 1);
  });
  const [skip, skipped] = useDeed(async () => {
    await post(`/v1/reviews/${item.id}/skip`, { reviewer: name });
    onward();
  });
  function onward() {
    setTold(null);
    setComment("");
    setOver(item.id);
    next.reload();
  }
  const open = item && !waiting && !told && !answered.busy && !skipped.busy;
  const say = (verdict) => () => open && answer(verdict);
  useKeys({
    a: say("A"), b: say("B"), t: say("tie"),
    s: () => open && skip(),
    c: () => open && box.current?.focus(),
    n: () => told && onward(),
    "?": () => setHelp(true),
  });
  return html`
    <div class="desk-head">
      <span>You are <strong>${name}</strong> <button class="small" onClick=${another}>Somebody else</button></span>
      ${left !== null && html`<span class="desk-count"><${Meter} value=${done / (done + left || 1)} label="Answered" /> <span role="status">${done} answered, ${left} left</span></span>`}
      <button class="small" onClick=${() => setHelp(true)}>Keys <kbd>?</kbd></button>
    </div>
    <${Loaded} of=${next}>${() => (waiting ? html`<${Card}><${Loading} /><//>` : item ? html`
      <${Card} title="Which response is better?" note="What the version said is told after your answer.">
        <${Context} messages=${item.context} />
        <div role="group" class="panel" aria-label="Instruction"><h3>Instruction</h3><${Text} text=${item.instruction} /></div>
        <${Sides} sides=${["A", "B"].map((letter) => ({ title: `Response ${letter}`, text: letter === "A" ? item.response_a : item.response_b, kind: told?.verdict === letter ? "chosen" : "" }))} />
        ${told ? html`<${Told} told=${told} /><div class="actions"><button class="primary" onClick=${onward}>Next pair <kbd>n</kbd></button></div>` : html`
          <div class="actions verdicts">
            <button class="primary" disabled=${!open} onClick=${say("A")}>A is better <kbd>a</kbd></button>
            <button class="primary" disabled=${!open} onClick=${say("B")}>B is better <kbd>b</kbd></button>
            <button disabled=${!open} onClick=${say("tie")}>Tie <kbd>t</kbd></button>
            <button disabled=${!open} onClick=${skip}>Skip <kbd>s</kbd></button>
          </div>
          <${Field} label=${html`Comment <kbd>c</kbd>`} hint="Goes with your answer. Escape leaves it.">
            ${(given) => html`<textarea ...${given} ref=${box} class="low" maxlength="5000" value=${comment} onInput=${(event) => setComment(event.target.value)} onKeyDown=${(event) => event.key === "Escape" && event.target.blur()}></textarea>`}
          <//>`}
        <${Trouble} error=${answered.error || skipped.error} retry=${(answered.error || skipped.error)?.status === 409 ? onward : undefined} />
      <//>` : html`<${Nothing} done=${done} />`)}<//>
    <${FillQueue} model=${model} number=${number} onFilled=${() => item || next.reload()} first=${!item} />
    <${Keys} open=${help} onClose=${() => setHelp(false)} />`;
}

const Nothing = ({ done }) => html`<${Card}><${Empty} title=${done ? "All done" : "There is nothing for you to review"}>
  <p>${done ? "You have seen every pair that there is for you." : "The queue is empty, or others hold what is left of it."}</p><//><//>`;

const STRATA = { disagreement: "the two versions differ on it", low_confidence: "the version was not sure", random: "it was drawn at random" };

function Told({ told }) {
  return html`<div class=${`told ${told.agrees ? "good" : "warn"}`} role="status">
    <p><strong>You: ${VERDICTS[told.verdict]}. ${told.model}: ${VERDICTS[told.model_verdict]}.</strong> <${Chip} kind=${told.agrees ? "good" : "warn"}>${told.agrees ? "you agree" : "you differ"}<//></p>
    <p class="note">${percent(told.confidence, 0)} of its votes${told.orders_agree ? "" : "; its two orders differ"}.
      ${told.against && ` ${told.against} says: ${VERDICTS[told.against_verdict]}.`} This pair was chosen because ${STRATA[told.stratum]}.</p>
  </div>`;
}

const Keys = ({ open, onClose }) => html`<${Dialog} title="Keys" open=${open} onClose=${onClose}>
  <dl class="keys">${[["a", "A is better"], ["b", "B is better"], ["t", "Tie"], ["s", "Skip: leave it to others"], ["c", "Write a comment"], ["n", "Next pair, after the answer"], ["?", "These keys"]].map(
    ([one, what]) => html`<div><dt><kbd>${one}</kbd></dt><dd>${what}</dd></div>`,
  )}</dl>
<//>`;
