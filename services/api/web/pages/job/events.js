// A job's events: kept up to date by the stream, newest first, each as a sentence.

import { stream } from "../../api.js";
import { duration, number, percent, share, short, time, words } from "../../parts/format.js";
import { Card, Chip, Empty, Field } from "../../parts/ui.js";
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";

const KEPT = 5000; // events; of more, the newest
const SHOWN = 50;
const GATHER_MS = 200;

// {events, lost, error}: all events of a job in order, from the stream that is taken up again where it
// broke off. `onNews()` is called when there are new ones. `turn`: another one asks anew, as after a
// retry.
export function useEvents(id, turn, onNews) {
  const [state, setState] = useState({ events: [], lost: false, error: null });
  const news = useRef(onNews);
  news.current = onNews;
  const last = useRef(0);
  useEffect(() => {
    last.current = 0;
    setState({ events: [], lost: false, error: null });
  }, [id]);
  useEffect(() => {
    const abort = new AbortController();
    let fresh = [];
    let timer;
    function flush() {
      timer = undefined;
      const added = fresh;
      fresh = [];
      setState((old) => ({ ...old, events: [...old.events, ...added].slice(-KEPT) }));
      news.current();
    }
    stream(`/v1/jobs/${id}/events`, {
      signal: abort.signal,
      resume: { after: last.current, done: () => false, lost: (lost) => setState((old) => (old.lost === lost ? old : { ...old, lost })) },
      onEvent(_name, event) {
        last.current = event.seq;
        fresh.push(event);
        timer ??= setTimeout(flush, GATHER_MS);
      },
    }).catch((error) => setState((old) => ({ ...old, error })));
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [id, turn]);
  return state;
}

const at = (data) => (data.iteration === undefined ? "" : ` of iteration ${data.iteration}`);
const SENTENCES = {
  "job.created": (d) => `The job was created: model ${d.model}, recipe ${d.recipe}.`,
  "job.pausing": () => "Somebody asked it to pause.",
  "job.paused": () => "It is paused: no worker holds anything of it.",
  "job.resumed": () => "It goes on.",
  "job.retried": () => "It goes on after it had failed.",
  "job.cancelling": () => "Somebody asked it to stop.",
  "job.cancelled": () => "It was cancelled.",
  "job.succeeded": () => "It has succeeded.",
  "job.failed": (d) => `It failed: ${d.detail || d.title}`,
  "iteration.started": (d) => `Iteration ${d.iteration} started.`,
  "iteration.succeeded": (d) => `Iteration ${d.iteration} is complete.`,
  "stage.started": (d) => `Stage ${words(d.stage)}${at(d)} started${d.chunks > 1 ? `: ${d.chunks} chunks` : ""}.`,
  "stage.progress": (d) => `Stage ${words(d.stage)}: ${d.done} of ${d.of} chunks are done.`,
  "stage.succeeded": (d) => `Stage ${words(d.stage)}${at(d)} is complete${counted(d.counts)}.`,
  "train.started": (d) => `The training${at(d)} started.`,
  "train.resumed": (d) => `The training${at(d)} goes on from step ${d.step} of ${d.steps}.`,
  "train.step": (d) => `Training${at(d)}: step ${d.step} of ${d.steps}, loss ${share(d.loss, 4)}.`,
  "train.checkpoint": (d) => `The checkpoint of step ${d.step}${at(d)} has strict accuracy ${percent(d.summary?.strict_accuracy)} on ${d.summary?.n} pairs.`,
  "version.published": (d) => `Version ${d.version} was published.`,
  "gate.decided": (d) => (d.promoted ? `The gate promoted ${d.version} to ${d.alias}.` : `The gate did not promote ${d.version} to ${d.alias}.`),
  "promotion.decided": (d) => `${d.version} was ${d.promoted ? "" : "not "}promoted to ${d.alias}.`,
  "instructions.reused": (d) => `All ${number(d.pool)} instructions have been used: iteration ${d.iteration} starts over.`,
  "chunk.returned": (d) => `A chunk of ${words(d.stage)} was given back: ${d.reason}.`,
  "chunk.requeued": (d) => `A chunk of ${words(d.stage)} is tried again after attempt ${d.attempt}: ${d.error?.detail || d.error?.title}.`,
  "chunk.failed": (d) => `A chunk of ${words(d.stage)} failed: ${d.error?.detail || d.error?.title}.`,
};
const COUNTED = ["selected", "pairs", "judgments_sampled", "training_examples", "train_tokens", "scored_pairs", "completed", "examples"];

function counted(counts = {}) {
  const told = COUNTED.filter((name) => counts[name] !== undefined).map((name) => `${short(counts[name])} ${words(name)}`);
  return told.length ? `: ${told.join(", ")}` : "";
}

export function sentence({ type, data }) {
  const said = SENTENCES[type]?.(data) || `${words(type.replace(".", " "))}.`;
  return said[0].toUpperCase() + said.slice(1);
}

const TONES = { failed: "bad", requeued: "warn", returned: "warn", succeeded: "good", published: "good", decided: "good" };
const tone = (type) => TONES[type.split(".")[1]] || "dim";

export default function Events({ events: { events, lost, error } }) {
  const [type, setType] = useState("");
  const [shown, setShown] = useState(SHOWN);
  const types = [...new Set(events.map((one) => one.type))].sort();
  const chosen = (type ? events.filter((one) => one.type === type) : events).toReversed();
  const control = html`<${Field} label="Only">${(given) => html`<select ...${given} value=${type} onChange=${(event) => setType(event.target.value)}>
    <option value="">all types</option>${types.map((one) => html`<option key=${one}>${one}</option>`)}
  </select>`}<//>`;
  return html`<${Card} title="Events" note=${`${number(events.length)} so far, newest first`} actions=${control}>
    ${error && html`<p class="stale" role="status">No more events are told: ${error.message}</p>`}
    ${lost && html`<p class="stale" role="status">The connection is lost; it is tried again.</p>`}
    ${chosen.length === 0 && html`<${Empty} title="No events" />`}
    <ol class="events">${chosen.slice(0, shown).map((one) => html`<${One} key=${one.seq} event=${one} />`)}</ol>
    ${chosen.length > shown && html`<p><button onClick=${() => setShown(shown + 5 * SHOWN)}>Older events</button></p>`}
  <//>`;
}

function One({ event }) {
  const when = new Date(event.created_at);
  const [open, setOpen] = useState(false);
  return html`<li>
    <time class="note" datetime=${event.created_at} title=${time(event.created_at)}>${when.toLocaleTimeString("en-GB")}</time>
    <details onToggle=${(toggled) => setOpen(toggled.target.open)}>
      <summary>${sentence(event)} <${Chip} kind=${tone(event.type)}>${event.type}<//></summary>
      ${open && html`<pre>${JSON.stringify(event, null, 2)}</pre>`}
    </details>
  </li>`;
}
