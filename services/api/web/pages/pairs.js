// The pairs of an iteration: how each was made, what the judge said of it, and what was kept.

import { get } from "../api.js";
import { number } from "../parts/format.js";
import { useList, useLoad } from "../parts/hooks.js";
import { useKeys } from "../parts/keys.js";
import { More } from "../parts/lists.js";
import { Orders } from "../parts/judgments.js";
import { Context, Sides, Text } from "../parts/texts.js";
import { Card, Chip, Empty, Field, Loaded, Page, Trouble } from "../parts/ui.js";
import { go, to } from "../router.js";
import { html, useEffect, useState } from "../vendor/preact.js";

const OUTCOMES = {
  kept: ["kept", "good", "A judgment of it is a training example"],
  dropped: ["dropped", "dim", "No judgment of it is a training example"],
  none_right: ["none right", "bad", "In one of its orders no judgment was right"],
  unparsable: ["unparsable", "warn", "A judgment could not be read"],
  flipped: ["position-biased", "warn", "The verdict changes with the order"],
};

export default function Pairs({ params, query }) {
  const iterations = useLoad((signal) => get(`/v1/jobs/${params.id}/iterations`, {}, signal), [params.id]);
  const crumbs = [["Jobs", to("/")], [params.id, to(`/jobs/${params.id}`)]];
  return html`<${Page} title="Pairs" crumbs=${crumbs} lead="Every pair that an iteration judged: how it was made, what was said of it, and what was kept.">
    <${Loaded} of=${iterations}>${({ data }) => {
      const curated = data.filter((one) => one.stages.some((stage) => stage.kind === "curate" && stage.state === "succeeded"));
      if (!curated.length) return html`<${Empty} title="No pairs yet"><p>They are here once an iteration has curated its judgments.</p><//>`;
      const iteration = Number(query.iteration ?? curated.at(-1).number);
      return html`<${Browser} job=${params.id} iteration=${iteration} numbers=${curated.map((one) => one.number)} query=${query} />`;
    }}<//>
  <//>`;
}

function Browser({ job, iteration, numbers, query }) {
  const at = `/v1/jobs/${job}/iterations/${iteration}/pairs`;
  const show = (change) => go(`/jobs/${job}/pairs`, { ...query, iteration, ...change });
  // A link to one pair shows those that follow it; what is chosen from the list leaves it as it is.
  const [first, setFirst] = useState(query.pair);
  const list = useList(
    async (after) => {
      const page = await get(at, { limit: 25, after: after ?? first, outcome: query.outcome, begins: query.begins });
      return { ...page, data: page.data.map((one) => ({ ...one, at })) };
    },
    [at, query.outcome, query.begins, first],
    (page) => page.next,
  );
  const rows = list.rows || [];
  // Where the address names none, the first of the list, unless that is still another iteration's.
  const pair = query.pair || (rows[0]?.at === at ? rows[0].id : undefined);
  const place = rows.findIndex((one) => one.id === pair);
  function move(step) {
    if (!rows.length) return;
    if (place < 0 || rows[place + step]) show({ pair: rows[place < 0 ? 0 : place + step].id });
    if (place + step >= rows.length - 1 && list.hasMore) list.more();
  }
  useKeys({ j: () => move(1), k: () => move(-1) });
  useEffect(() => {
    if (!list.loading && list.hasMore && !rows.length) list.more(); // a rare outcome: look on
  });
  useEffect(() => {
    document.querySelector(".pair-list [aria-current]")?.scrollIntoView({ block: "nearest" });
  }, [query.pair]);
  function filter(change) {
    setFirst(undefined);
    show({ pair: undefined, ...change });
  }
  const onlyOnePart = query.pair ? "one" : "all";
  return html`
    <div class="row top">
      <${Field} label="Iteration">${(given) => html`<select ...${given} value=${iteration} onChange=${(event) => filter({ iteration: event.target.value })}>${numbers.map((n) => html`<option value=${n}>${n}</option>`)}</select>`}<//>
      <${Field} label="Show">${(given) => html`<select ...${given} value=${query.outcome || ""} onChange=${(event) => filter({ outcome: event.target.value })}>
        <option value="">all pairs</option>${Object.entries(OUTCOMES).map(([value, [name, , told]]) => html`<option value=${value}>${name}: ${told.toLowerCase()}</option>`)}</select>`}<//>
      <${Field} label="Id begins with">${(given) => html`<input ...${given} key=${query.begins || ""} defaultValue=${query.begins || ""} onChange=${(event) => filter({ begins: event.target.value })} />`}<//>
    </div>
    <div class=${`browser ${onlyOnePart}`}>
      <section class="card pair-list" aria-label="Pairs">
        ${first && html`<p><button class="small" onClick=${() => setFirst(undefined)}>From the first pair on</button></p>`}
        <${Loaded} of=${list}>${() => html`
          ${rows.length === 0 && !list.loading && html`<${Empty} title=${first ? "Nothing follows it" : "None is like that"} />`}
          <ul>${rows.map((one) => html`<li key=${one.id}><${Listed} one=${one} current=${one.id === pair} href=${to(`/jobs/${job}/pairs`, { ...query, iteration, pair: one.id })} /></li>`)}</ul>
          <${More} of=${list} />`}<//>
      </section>
      <div class="pair-one">${pair
        ? html`<p class="pair-way"><a href=${to(`/jobs/${job}/pairs`, { ...query, iteration, pair: undefined })}>All pairs</a>
            <span class="actions"><button class="small" onClick=${() => move(-1)} disabled=${place < 1}>Previous <kbd>k</kbd></button><button class="small" onClick=${() => move(1)} disabled=${!rows.length || place === rows.length - 1}>Next <kbd>j</kbd></button></span></p>
          <${One} key=${pair} address=${`${at}/${encodeURIComponent(pair)}`} />`
        : html`<div class="card"><${Empty} title=${list.loading ? "Looking for the first pair" : "No pair to show"} /></div>`}
      </div>
    </div>`;
}

const Told = ({ outcomes }) => html`<span class="chips">${outcomes.map((one) => html`<${Chip} key=${one} kind=${OUTCOMES[one][1]}>${OUTCOMES[one][0]}<//>`)}</span>`;

const Listed = ({ one, current, href }) => html`<a href=${href} aria-current=${current ? "true" : undefined}>
  <span class="pair-id">${one.id}</span><span class="pair-text">${one.instruction}</span><${Told} outcomes=${one.outcomes} /></a>`;

const MADE = {
  modified: ["answers the instruction", "answers the modified instruction, so it is worse here"],
  verified: ["meets the reference answer", "does not meet the reference answer"],
};

function One({ address }) {
  const found = useLoad((signal) => get(address, {}, signal), [address]);
  return html`<${Loaded} of=${found}>${(pair) => {
    const [good, bad] = MADE[pair.construction];
    return html`
      <${Card} title=${pair.id} note=${pair.judge && html`judged by ${pair.judge}`} actions=${html`<${Told} outcomes=${pair.outcomes} />${pair.judge && html`<a class="button small" href=${to("/playground", { job: pair.job, iteration: pair.iteration, pair: pair.id })}>To the playground</a>`}`}>
        <${Context} messages=${pair.context} />
        <div class="sides">
          <div role="group" class="panel" aria-label="Instruction"><h3>Instruction</h3><${Text} text=${pair.instruction} /></div>
          ${pair.modified_instruction !== null && html`<div role="group" class="panel" aria-label="Modified instruction"><h3>Modified instruction</h3><${Text} text=${pair.modified_instruction} /></div>`}
        </div>
        <${Sides} sides=${[
          { title: "Better response", note: good, text: pair.chosen, kind: "good" },
          { title: "Worse response", note: bad, text: pair.rejected, kind: "bad" },
        ]} />
      <//>
      <${Orders} orders=${pair.orders} />`;
  }}<//>`;
}
