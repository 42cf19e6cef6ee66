// Fill a version's review queue: a job that judges a part of the source and draws pairs from it.

import { get, post } from "../api.js";
import { to } from "../router.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { useDeed, useLoad } from "./hooks.js";
import { Card, Chip, Field, Trouble } from "./ui.js";

const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export function FillQueue({ model, number, onFilled, first }) {
  const [asked, setAsked] = useState({ size: 50, source: "heldout", overlap: 1, seed: 0 });
  const [job, setJob] = useState(null);
  const datasets = useLoad((signal) => get("/v1/datasets", { limit: 100 }, signal));
  const [fill, { busy, error }] = useDeed(async () => {
    const body = { size: Number(asked.size), source: asked.source, overlap: Number(asked.overlap), seed: Number(asked.seed) };
    setJob(await post(`/v1/models/${model}/versions/${number}/reviews`, body));
  });
  useEffect(() => {
    if (!job) return undefined;
    if (ENDED.has(job.state)) {
      onFilled();
      return undefined;
    }
    const timer = setTimeout(() => get(`/v1/jobs/${job.id}`).then(setJob, () => setJob({ ...job })), 1500);
    return () => clearTimeout(timer);
  }, [job]);
  const sources = (datasets.data?.data || []).filter((one) => one.kind === "labelled" || one.kind === "pairs");
  const field = (label, name, more, hint) => html`<${Field} label=${label} hint=${hint}>${(given) => html`<input ...${given} ...${more} type="number" required value=${asked[name]} onInput=${(event) => setAsked({ ...asked, [name]: event.target.value })} />`}<//>`;
  return html`<details class="card" open=${first}><summary>Fill the queue</summary>
    <form onSubmit=${(event) => { event.preventDefault(); fill(); }}>
      <div class="row top">
        <${Field} label="Pairs from">${(given) => html`<select ...${given} value=${asked.source} onChange=${(event) => setAsked({ ...asked, source: event.target.value })}>
          <option value="heldout">held-out pairs of its job</option><option value="traffic">what /judge was asked</option>
          ${sources.map((one) => html`<option value=${one.id}>${one.name} (${one.kind})</option>`)}</select>`}<//>
        ${field("Pairs", "size", { min: 10, max: 1000 })}
        ${field("Reviewers for each", "overlap", { min: 1, max: 5 })}
        ${field("Seed", "seed", { min: 0, max: 2147483647 }, "Another one draws other pairs.")}
      </div>
      <div class="actions"><button disabled=${busy}>Fill it</button>
        ${job && html`<span role="status"><${Chip} state=${job.state} /> <a href=${to(`/jobs/${job.id}`)}>${job.id}</a>${job.error && `: ${job.error.detail || job.error.title}`}</span>`}</div>
      <${Trouble} error=${error} />
    </form>
  </details>`;
}
