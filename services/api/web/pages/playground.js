// Ask a version which of two responses is better, and another one beside it; the reasoning is shown
// as it is written.

import { all, get } from "../api.js";
import { useDeed, useLoad } from "../parts/hooks.js";
import { Answer, Between, useAnswer } from "../parts/answers.js";
import { Context } from "../parts/texts.js";
import { Card, Empty, Field, Loaded, Page, Trouble, useMay } from "../parts/ui.js";
import { to } from "../router.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";

const EXAMPLES = [
  ["Swapped letters", "Swap the first and the last letter: m f q", "q f m", "q m"],
  ["Replaced letters", "Replace t with w in this: c t k u", "c w u k", "c w k u"],
  ["A long word reversed", "Reverse these letters: k f a b r t e q", "q e t r b a f k", "q e t r a b f k"],
  ["Both are wrong", "Put in alphabetical order: k c x", "k x c", "x k c"],
  ["Words", "Name a prime between 20 and 30.", "23 is a prime between 20 and 30.", "27 is a prime, as it is odd."],
];
const BLANK = { context: [], system: "", instruction: "", a: "", b: "" };
const example = (at) => (EXAMPLES[at] ? { ...BLANK, instruction: EXAMPLES[at][1], a: EXAMPLES[at][2], b: EXAMPLES[at][3] } : BLANK);
const OPTIONS = { template: "", votes: 1, both: true, tie: true, explain: true };

export default function Playground({ query }) {
  const mayRead = useMay("read");
  const known = useLoad(mayRead ? load : async () => ({ versions: [["", "what latest means"]], templates: [] }));
  return html`<${Page} title="Playground" lead="Which of two responses is better? Ask one version, or two of them side by side.">
    <${Loaded} of=${known}>${(data) =>
      data.versions.length
        ? html`<${Board} known=${data} query=${query} />`
        : html`<${Card}><${Empty} title="There is no version to ask yet"><p>A job makes the first ones. <a href=${to("/jobs/new")}>Start a job</a></p><//><//>`
    }<//>
  <//>`;
}

// {versions: [[name, what it means]], templates: [name]}; what `latest` means stands first.
async function load() {
  const [models, templates] = await Promise.all([all("/v1/models", {}, "name", 100), all("/v1/templates", {}, "name")]);
  const versions = await Promise.all(models.map((one) => get(`/v1/models/${one.name}/versions`, { limit: 100 })));
  const aliased = models.flatMap((one) => Object.entries(one.aliases).map(([alias, ref]) => [`${one.name}:${alias}`, ref]));
  const numbered = versions.flatMap((page) => page.data.map((one) => [one.ref, ""]));
  return {
    versions: [...aliased.sort(([one], [other]) => other.endsWith(":latest") - one.endsWith(":latest")), ...numbered],
    templates: templates.filter((one) => one.kind === "judge").map((one) => one.name),
  };
}

function Board({ known, query }) {
  const names = known.versions.map(([name]) => name);
  const [one, setOne] = useState(names.includes(query.a) ? query.a : names[0]);
  const [other, setOther] = useState(names.includes(query.b) ? query.b : "");
  const [asked, setAsked] = useState(query.pair ? BLANK : example(0));
  const [options, setOptions] = useState(OPTIONS);
  const answers = [useAnswer(), useAnswer()];
  const [bring, brought] = useDeed(async () => {
    const pair = await get(`/v1/jobs/${query.job}/iterations/${query.iteration}/pairs/${encodeURIComponent(query.pair)}`);
    setAsked({ ...BLANK, context: pair.context, instruction: pair.instruction, a: pair.chosen, b: pair.rejected });
  });
  useEffect(() => {
    if (query.job && query.pair) bring();
  }, []);
  const begun = EXAMPLES.findIndex(([, instruction, a, b]) => asked.instruction === instruction && asked.a === a && asked.b === b);
  const form = useRef(null);
  const change = (what) => setAsked((old) => ({ ...old, ...what }));
  const option = (what) => setOptions((old) => ({ ...old, ...what }));
  const busy = answers.some(([state]) => state.busy);

  function judge(event) {
    event?.preventDefault();
    answers[0][1](one, asked, options);
    if (other) answers[1][1](other, asked, options);
    else answers[1][2]();
  }
  function swap() {
    change({ a: asked.b, b: asked.a });
    for (const answer of answers) answer[2]();
  }
  function hurry(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !busy) form.current.requestSubmit();
  }
  const area = (label, name, more = {}) => html`<${Field} label=${label}>${(given) => html`<textarea ...${given} ...${more} value=${asked[name]} onInput=${(event) => change({ [name]: event.target.value })}></textarea>`}<//>`;
  return html`
    <form ref=${form} class="card" onSubmit=${judge} onKeyDown=${hurry}>
      <div class="row">
        <${Versions} label="Version" known=${known.versions} value=${one} onChange=${setOne} />
        <${Versions} label="Beside it" known=${known.versions} value=${other} onChange=${setOther} none="no other" />
        <${Field} label="Begin with">${(given) => html`<select ...${given} value=${begun < 0 ? "" : begun} onChange=${(event) => setAsked(example(event.target.value))}><option value="">my own</option>${EXAMPLES.map(([name], at) => html`<option value=${at}>${name}</option>`)}</select>`}<//>
      </div>
      <${Trouble} error=${brought.error} />
      ${asked.context.length > 0 && html`<${Context} messages=${asked.context} /><p><button type="button" class="small" onClick=${() => change({ context: [] })}>Without this conversation</button></p>`}
      ${area("Instruction", "instruction", { required: true, rows: 2, class: "low" })}
      <div class="two">${area("Response A", "a")}${area("Response B", "b")}</div>
      <details><summary>System prompt and options</summary>
        <div class="stack">
          ${area("System prompt", "system", { rows: 2, class: "low" })}
          <div class="row">
            <${Field} label="Template" hint="Default: the one it was trained with.">${(given) => html`<select ...${given} value=${options.template} onChange=${(event) => option({ template: event.target.value })}><option value="">its own</option>${known.templates.map((name) => html`<option>${name}</option>`)}</select>`}<//>
            <${Field} label="Votes" hint="1 is greedy, and is shown as it is written.">${(given) => html`<input ...${given} type="number" min="1" max="64" required value=${options.votes} onInput=${(event) => option({ votes: event.target.value })} />`}<//>
          </div>
          <fieldset class="choices"><legend class="visually-hidden">How it is judged</legend>
            ${[["both", "in both orders"], ["tie", "a tie is allowed"], ["explain", "with the reasoning"]].map(([name, label]) => html`<label><input type="checkbox" checked=${options[name]} onChange=${(event) => option({ [name]: event.target.checked })} /> ${label}</label>`)}
          </fieldset>
        </div>
      </details>
      <div class="actions"><button class="primary" disabled=${busy}>${busy ? "Judging…" : "Judge"}</button>
        <button type="button" onClick=${swap}>Swap responses</button>
        ${busy && html`<button type="button" onClick=${() => answers.forEach((answer) => answer[2]())}>Stop</button>`}
        <span class="note"><kbd>Ctrl</kbd> <kbd>Enter</kbd> judges</span></div>
    </form>
    <${Between} answers=${answers.map(([state]) => state)} />
    <div class="answers">${answers.map(([state], at) => state.asked !== null && html`<${Answer} key=${at} state=${state} retry=${() => answers[at][1](state.asked, asked, options)} />`)}</div>`;
}

const Versions = ({ label, known, value, onChange, none }) => html`<${Field} label=${label}>${(given) => html`<select ...${given} value=${value} onChange=${(event) => onChange(event.target.value)}>
  ${none && html`<option value="">${none}</option>`}${known.map(([name, means]) => html`<option value=${name}>${name}${means && ` (${means})`}</option>`)}</select>`}<//>`;
