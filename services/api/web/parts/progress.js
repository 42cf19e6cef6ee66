// How far a job is: a bar, and in words what it is at and when it may end.

import { html } from "../vendor/preact.js";
import { duration, percent, words } from "./format.js";
import { Meter } from "./ui.js";

// "iteration 2 of 5: judge, 3 of 12 chunks"
export function where({ kind, progress }) {
  const { iteration, iterations, stage, chunks, chunks_done: done } = progress;
  const at = kind === "loop" ? `iteration ${iteration} of ${iterations}` : "";
  if (!stage) return at;
  const parts = chunks > 1 ? `, ${done} of ${chunks} chunks` : "";
  return `${at}${at && ": "}${words(stage)}${parts}`;
}

// "about 3 min left"; what it rests on is told beside it, or why it is not known.
export function left({ progress }) {
  const { eta_seconds: eta } = progress;
  if (eta === null) return "";
  const step = eta < 60 ? 5 : eta < 600 ? 30 : 60; // no more exact than it is
  return eta < 5 ? "a moment left" : `about ${duration(Math.max(step, Math.round(eta / step) * step))} left`;
}

export function Bar({ job }) {
  return html`<span class="job-bar">
    <span class="job-bar-track"><${Meter} value=${job.progress.share} label=${`Progress of ${job.id}`} /> <span class="note">${percent(job.progress.share, 0)}</span></span>
    <span class="note">${where(job)}</span>
  </span>`;
}

// Seconds from its start to its end, or until now; null before it has started.
export function took(job) {
  if (!job.started_at) return null;
  const end = job.finished_at ? new Date(job.finished_at) : new Date();
  return (end - new Date(job.started_at)) / 1000;
}
