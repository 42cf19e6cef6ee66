// Webhooks: addresses that are told of this project's events, and what came of each call.

import { patch, post, remove } from "../api.js";
import { Ask, Secret } from "../parts/dialogs.js";
import { time } from "../parts/format.js";
import { useDeed } from "../parts/hooks.js";
import { Listed, useMore } from "../parts/more.js";
import { Card, Chip, Field, Page, Trouble, When, tell } from "../parts/ui.js";
import { html, useEffect, useState } from "../vendor/preact.js";

const LIVE_SECONDS = 3;
const GROUPS = ["job", "iteration", "version", "promotion", "alias", "canary", "reviews", "webhook"];

export default function Webhooks() {
  const hooks = useMore("/v1/webhooks");
  const [asked, setAsked] = useState({ what: null, of: null });
  const [made, setMade] = useState(null);
  const ask = (what, of = null) => setAsked({ what, of });
  const close = () => setAsked((old) => ({ ...old, what: null }));
  function secret(hook) {
    setMade(hook);
    hooks.reload();
  }
  return html`<${Page} title="Webhooks" lead="Addresses that are told of this project's events, signed; a call that gets no good answer is tried up to ten times." actions=${html`<button class="primary" onClick=${() => ask("create")}>Create a webhook</button>`}>
    <${Listed} of=${hooks} empty="No webhooks yet.">${(rows) => rows.map((one) => html`<${Hook} key=${one.id} of=${one} ask=${ask} onChange=${hooks.reload} />`)}<//>
    <${Form} key=${`${asked.what} ${asked.of?.id}`} open=${asked.what === "create" || asked.what === "change"} of=${asked.of} onClose=${close} onDone=${(hook) => (hook.secret ? secret(hook) : hooks.reload())} />
    <${Ask} open=${asked.what === "rotate"} title="Give it a new secret" label="Rotate" onClose=${close} deed=${() => post(`/v1/webhooks/${asked.of.id}/rotate-secret`)} onDone=${secret}>
      <p>Deliveries to <strong>${asked.of?.url}</strong> carry two signatures for 24 hours, by the new secret and by the one before.</p><//>
    <${Ask} open=${asked.what === "delete"} title="Delete the webhook" label="Delete" danger onClose=${close} deed=${() => remove(`/v1/webhooks/${asked.of.id}`)} onDone=${() => { tell("The webhook is deleted."); hooks.reload(); }}>
      <p><strong>${asked.of?.url}</strong> is told nothing more; its secret and all its deliveries are forgotten.</p><//>
    <${Secret} made=${made} title="The webhook's secret" onClose=${() => setMade(null)}><p class="note">The receiver checks signatures with it (docs/webhooks.md has how).</p><//>
  <//>`;
}

const REASONS = { asked: "by request", gone: "it answered 410: gone", failing: "it failed for five days" };

function Hook({ of, ask, onChange }) {
  const [opened, setOpened] = useState(false);
  const [test, testing] = useDeed(async () => {
    await post(`/v1/webhooks/${of.id}/test`);
    setOpened(true);
    tell("A test event is on its way.");
  });
  const [turn, turning] = useDeed(async () => {
    await patch(`/v1/webhooks/${of.id}`, { state: on ? "disabled" : "enabled" });
    onChange();
  });
  const on = of.state === "enabled";
  return html`<${Card} title=${of.url} note=${of.description} class="hook" actions=${html`
      <button disabled=${!on || testing.busy} onClick=${test}>Send a test</button>
      <button disabled=${turning.busy} onClick=${turn}>${on ? "Disable" : "Enable"}</button>
      <button onClick=${() => ask("change", of)}>Change…</button>
      <button onClick=${() => ask("rotate", of)}>New secret…</button>
      <button class="danger" onClick=${() => ask("delete", of)}>Delete…</button>`}>
    <p class="scopes"><${Chip} state=${of.state} /> ${of.disabled_reason && html`<span class="note">${REASONS[of.disabled_reason] || of.disabled_reason}</span>`}
      ${of.failing_since && html`<${Chip} kind="warn">failing since ${time(of.failing_since)}<//>`}
      ${of.events.map((one) => html`<code key=${one}>${one}</code>`)}</p>
    <${Trouble} error=${testing.error || turning.error} />
    <p><button class="small" aria-expanded=${opened} onClick=${() => setOpened(!opened)}>${opened ? "Hide deliveries" : "Show deliveries"}</button></p>
    ${opened && html`<${Deliveries} hook=${of} />`}
  <//>`;
}

function Deliveries({ hook }) {
  const [state, setState] = useState("");
  const list = useMore(`/v1/webhooks/${hook.id}/deliveries`, { state });
  const waiting = list.rows?.some((one) => one.state === "pending");
  useEffect(() => {
    // The first page is asked again while something is under way, as far as one has not gone on.
    if (!waiting || list.loading || list.rows.length > 25) return undefined;
    const timer = setTimeout(list.reload, LIVE_SECONDS * 1000);
    return () => clearTimeout(timer);
  }, [waiting, list.loading, list.rows]);
  return html`<div class="stack">
    <${Field} label="Deliveries">${(given) => html`<select ...${given} class="narrow" value=${state} onChange=${(event) => setState(event.target.value)}>${["", "pending", "delivered", "failed"].map((one) => html`<option key=${one} value=${one}>${one || "all"}</option>`)}</select>`}<//>
    <${Listed} of=${list} empty="None of the last 30 days.">${(rows) => rows.map((one) => html`<${Delivery} key=${one.id} of=${one} hook=${hook} onChange=${list.reload} />`)}<//>
  </div>`;
}

function Delivery({ of, hook, onChange }) {
  const [again, { busy, error }] = useDeed(async () => {
    await post(`/v1/webhooks/${hook.id}/deliveries/${of.id}/redeliver`);
    tell("It is sent again.");
    onChange();
  });
  const answer = of.status ? `HTTP ${of.status}` : of.error || "no answer yet";
  return html`<details class="decision">
    <summary><${Chip} state=${of.state} /> <strong>${of.type}</strong> <span>${answer}</span>
      <span class="note">${of.attempts === 1 ? "1 attempt" : `${of.attempts} attempts`}, <${When} at=${of.created_at} />${of.next_at ? `, next at ${time(of.next_at)}` : ""}</span></summary>
    <div class="stack">
      <pre tabindex="0" role="region" aria-label="What is sent">${JSON.stringify(of.payload, null, 2)}</pre>
      ${of.response && html`<p>It answered:</p><pre tabindex="0" role="region" aria-label="The answer">${of.response}</pre>`}
      <div class="actions"><button disabled=${busy || hook.state !== "enabled"} onClick=${again}>Send it again</button> <code>${of.id}</code></div>
      <${Trouble} error=${error} />
    </div>
  </details>`;
}

function Form({ open, of, onClose, onDone }) {
  const [form, setForm] = useState({ url: of?.url || "", description: of?.description || "", events: of?.events || ["*"] });
  const set = (field) => (event) => setForm({ ...form, [field]: event.target.value });
  const all = form.events.includes("*");
  function toggle(name) {
    if (name === "*") return setForm({ ...form, events: all ? ["job.*"] : ["*"] });
    const others = form.events.filter((one) => one !== "*");
    return setForm({ ...form, events: others.includes(name) ? others.filter((one) => one !== name) : [...others, name] });
  }
  // Single events that were chosen over the API stay as they are.
  const names = [...GROUPS.map((one) => `${one}.*`), ...form.events.filter((one) => one !== "*" && !one.endsWith(".*"))];
  const body = { url: form.url, events: form.events, description: form.description || null };
  return html`<${Ask} open=${open} title=${of ? "Change the webhook" : "Create a webhook"} label=${of ? "Change it" : "Create"} disabled=${!form.events.length} onClose=${onClose}
    deed=${() => (of ? patch(`/v1/webhooks/${of.id}`, body) : post("/v1/webhooks", body))} onDone=${onDone}>
    <${Field} label="Address" hint="https, to a name of the public internet; the operator may allow networks inside.">${(given) => html`<input ...${given} type="url" required maxlength="2048" placeholder="https://ci.example.com/hooks/selftaught" value=${form.url} onInput=${set("url")} />`}<//>
    <fieldset class="choices"><legend>Events</legend>
      <label class="check"><input type="checkbox" checked=${all} onChange=${() => toggle("*")} /> all</label>
      ${names.map((name) => html`<label class="check" key=${name}><input type="checkbox" checked=${!all && form.events.includes(name)} onChange=${() => toggle(name)} /> <code>${name}</code></label>`)}
    </fieldset>
    <${Field} label="What it is for" hint="For people.">${(given) => html`<input ...${given} maxlength="200" value=${form.description} onInput=${set("description")} />`}<//>
  <//>`;
}
