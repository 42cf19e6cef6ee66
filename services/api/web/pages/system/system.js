// What the system is doing: usage for everyone; health, queues and engines for the operator.

import { get, text } from "../../api.js";
import { duration, number, short } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import * as metrics from "../../parts/metrics.js";
import { Card, Chip, Empty, Facts, Loaded, Page, Table, When, useCaller } from "../../parts/ui.js";
import { html } from "../../vendor/preact.js";
import { Usage } from "../access/usage.js";

const LIVE_SECONDS = 5;

export default function System() {
  const { operator, project } = useCaller();
  return html`<${Page} title="System" lead=${operator ? "What it is doing now, over all projects." : `What project ${project} uses.`}>
    ${operator && html`<${Health} />`}
    <${Card} title="Usage" note=${`of project ${project}`}><${Usage} /><//>
    ${operator && html`<${Work} /><${Engines} />`}
  <//>`;
}

// Not ready is an answer of 503 with the same body.
async function ready(signal) {
  try {
    return await get("/readyz", {}, signal);
  } catch (error) {
    if (error.checks) return error;
    throw error;
  }
}

function Health() {
  const found = useLoad(ready, [], LIVE_SECONDS);
  return html`<${Card} title="Health"><${Loaded} of=${found}>${({ checks }) => html`<${Facts} pairs=${Object.entries(checks).map(([name, said]) => [
    name, html`<${Chip} kind=${said === "ok" ? "good" : "bad"}>${said}<//>`,
  ])} />`}<//><//>`;
}

const late = (seconds) => (seconds ? duration(seconds) : "nothing waits");

// Of /metrics (docs/observability.md): [name, its value, how it is told, when it is a worry]
const SIGNS = [
  ["Leases that ran out", (all) => metrics.sum(all, "selftaught_lease_expiries_total"), number, () => false],
  ["Leases ran out, work not given out again yet", (all) => metrics.sum(all, "selftaught_overdue_leases"), number, (value) => value > 0],
  ["Oldest message not sent to workers yet", (all) => metrics.one(all, "selftaught_outbox_age_seconds"), late, (value) => value > 30],
  ["Oldest webhook call that is late", (all) => metrics.one(all, "selftaught_webhooks_late_seconds"), late, (value) => value > 60],
  ["Tokens of engines", (all) => metrics.sum(all, "selftaught_engine_tokens_total"), short, () => false],
  ["Unreadable answers", (all) => metrics.sum(all, "selftaught_parse_failures_total"), number, () => false],
  ["Database", (all) => metrics.one(all, "selftaught_database_up"), (value) => (value ? "answers" : "cannot be asked"), (value) => !value],
];

function Work() {
  const found = useLoad(async (signal) => metrics.parse(await text("/metrics", signal)), [], LIVE_SECONDS);
  return html`<div class="grid">
    <${Card} title="Jobs by state"><${Loaded} of=${found}>${(all) => html`<${States} all=${all} />`}<//><//>
    <${Card} title="Queues" note="chunks of work: who waits, who is at it"><${Loaded} of=${found}>${(all) => html`<${Queues} all=${all} />`}<//><//>
  </div>
  <${Card} title="Leases, tokens, database" note="since the services began, or now"><${Loaded} of=${found}>${(all) => html`<${Signs} all=${all} />`}<//><//>`;
}

function States({ all }) {
  const jobs = metrics.of(all, "selftaught_jobs").filter((one) => one.value > 0);
  return jobs.length ? html`<${Facts} pairs=${jobs.map((one) => [html`<${Chip} state=${one.labels.state} />`, html`<strong class="big">${number(one.value)}</strong>`])} />` : html`<p class="note">No jobs.</p>`;
}

function Signs({ all }) {
  const signs = SIGNS.map(([name, find, told, bad]) => [name, find(all), told, bad]).filter(([, value]) => value !== undefined);
  return html`<${Facts} pairs=${signs.map(([name, value, told, bad]) => [name, html`<${Chip} kind=${bad(value) ? "bad" : "dim"}>${told(value)}<//>`])} />`;
}

function Queues({ all }) {
  const by = (name) => Object.fromEntries(metrics.of(all, name).map((one) => [one.labels.queue, one.value]));
  const [ready, running, oldest] = ["selftaught_ready_chunks", "selftaught_running_chunks", "selftaught_oldest_ready_chunk_seconds"].map(by);
  const queues = [...new Set([...Object.keys(ready), ...Object.keys(running)])].filter((one) => ready[one] || running[one]).sort();
  if (!queues.length) return html`<${Empty} title="Nothing waits"><p>No chunk of work is ready or under way.</p><//>`;
  const columns = [
    { name: "Queue", cell: (one) => one },
    { name: "Waiting", number: true, cell: (one) => number(ready[one] ?? 0) },
    { name: "Oldest", number: true, cell: (one) => (ready[one] ? duration(oldest[one]) : "–") },
    { name: "Under way", number: true, cell: (one) => number(running[one] ?? 0) },
  ];
  return html`<${Table} caption="Chunks by queue" columns=${columns} rows=${queues} id=${String} />`;
}

function Engines() {
  const found = useLoad((signal) => get("/v1/engines", {}, signal), [], LIVE_SECONDS);
  return html`<${Card} title="Engines" note="machines that run vLLM, their devices and who holds them">
    <${Loaded} of=${found}>${({ data }) => (data.length ? data.map((node) => html`<${Node} key=${node.node} of=${node} />`) : html`<${Empty} title="No engine nodes"><p>Workers run the models themselves here.</p><//>`)}<//>
  <//>`;
}

// A training holds a device as <chunk>.<lease>; a server by its id.
const held = (device) => (!device.holder ? "free" : device.purpose === "training" ? `training, chunk ${device.holder.split(".")[0]}` : `server …${device.holder.slice(-6)}`);

function Node({ of: { node, alive, devices, servers } }) {
  const columns = [
    { name: "Server", cell: (one) => html`<code title=${one.id}>…${one.id.slice(-6)}</code>` },
    { name: "Model", cell: (one) => one.model },
    { name: "State", cell: (one) => html`<${Chip} state=${one.state} />${one.error && html`<br /><span class="note">${one.error.detail || one.error.title}</span>`}` },
    { name: "Restarts", number: true, cell: (one) => number(one.restarts) },
    { name: "KV tokens", number: true, cell: (one) => number(one.kv_tokens) },
    { name: "Versions", cell: (one) => html`<span class="scopes">${one.adapters.map((adapter) => html`<${Chip} key=${adapter.version} state=${adapter.state}>${adapter.version}: ${adapter.state}<//>`)}</span>` },
    { name: "Ready since", cell: (one) => html`<${When} at=${one.ready_at} />` },
  ];
  return html`<section class="stack"><h3>${node} <${Chip} kind=${alive ? "good" : "bad"}>${alive ? "alive" : "not heard of"}<//></h3>
    <ul class="pairs">${devices.map((one) => html`<li key=${one.name}><${Chip} kind=${one.holder ? "busy" : "dim"}>device ${one.name}: ${held(one)}<//></li>`)}</ul>
    ${servers.length > 0 && html`<${Table} caption=${`Servers of ${node}`} columns=${columns} rows=${servers} />`}
  </section>`;
}
