// What the caller's project has used, and how much of it is left.

import { get } from "../../api.js";
import { bytes, duration, number, percent, time } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import { Loaded, Meter } from "../../parts/ui.js";
import { html } from "../../vendor/preact.js";

const LIVE_SECONDS = 10;
const FULL = 0.9;
const PARTS = [
  ["requests", "Requests this minute", number],
  ["tokens", "Tokens today", number],
  ["gpu_seconds", "Device time today", duration, "What trainings and servers of models held devices for."],
  ["stored_bytes", "Stored", bytes],
];

export function Usage() {
  const usage = useLoad((signal) => get("/v1/usage", {}, signal), [], LIVE_SECONDS);
  return html`<${Loaded} of=${usage}>${(found) => html`<ul class="usage">${PARTS.map(([field, name, told, hint]) => html`<${Part} key=${field} name=${name} told=${told} hint=${hint} of=${found[field]} />`)}</ul>`}<//>`;
}

function Part({ name, told, hint, of }) {
  const share = of?.limit ? of.used / of.limit : of?.limit === 0 ? 1 : null;
  return html`<li class=${share >= FULL ? "full" : ""}>
    <span class="usage-name">${name}</span>
    <strong>${of ? told(of.used) : "not counted"}</strong>
    ${share === null ? html`<span class="note">no limit</span>` : html`<${Meter} value=${share} label=${name} /><span class="note">${percent(share, 0)} of ${told(of.limit)}</span>`}
    ${hint && html`<span class="note">${hint}</span>`}
    ${share !== null && of.resets_at && html`<span class="note">begins anew at ${time(of.resets_at)}</span>`}
  </li>`;
}
