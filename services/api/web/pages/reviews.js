// What there is to review: every model's versions, how far people have come, and whether agreement
// falls.

import { all, get } from "../api.js";
import { driftOf } from "../parts/agreement.js";
import { number, percent } from "../parts/format.js";
import { useLoad } from "../parts/hooks.js";
import { Card, Chip, Empty, Loaded, Page, Table } from "../parts/ui.js";
import { to } from "../router.js";
import { html } from "../vendor/preact.js";

const MOST = 10;

export default function Reviews() {
  const models = useLoad(() => all("/v1/models", {}, "name", 100));
  return html`<${Page} title="Reviews" lead="People say which response is better, without seeing what a version said; then the two are held against each other.">
    <${Loaded} of=${models}>${(data) =>
      data.length ? data.map((one) => html`<${Model} key=${one.name} name=${one.name} />`) : html`<${Card}><${Empty} title="There is no version to review yet"><p>A job makes the first ones.</p><//><//>`
    }<//>
  <//>`;
}

function Model({ name }) {
  const found = useLoad(async (signal) => {
    const at = `/v1/models/${name}`;
    const [versions, drift] = await Promise.all([get(`${at}/versions`, { limit: MOST }, signal), get(`${at}/reviews/drift`, {}, signal)]);
    const summaries = await Promise.all(versions.data.map((one) => get(`${at}/versions/${one.number}/reviews/summary`, {}, signal)));
    return { drift, rows: versions.data.map((one, at) => ({ ...one, summary: summaries[at] })) };
  }, [name]);
  const columns = [
    { name: "Version", cell: (row) => html`${row.ref} ${row.aliases.map((alias) => html`<${Chip} key=${alias} kind="busy">${alias}<//> `)}` },
    { name: "In its queue", number: true, cell: (row) => number(row.summary.items) },
    { name: "Answered", number: true, cell: (row) => number(row.summary.n) },
    { name: "Agreement", number: true, cell: (row) => percent(row.summary.agreement) },
    { name: "Go to", cell: (row) => html`<a href=${to(`/reviews/${name}/${row.number}`)} aria-label=${`Review ${row.ref}`}>Review</a>${row.summary.n > 0 && html` · <a href=${to(`/reviews/${name}/${row.number}`, { tab: "summary" })} aria-label=${`Summary of ${row.ref}`}>Summary</a>`}` },
  ];
  return html`<${Card} title=${name} actions=${found.data?.drift.versions.length ? html`<${Drift} of=${found.data.drift} />` : null}>
    <${Loaded} of=${found}>${({ rows }) => html`<${Table} caption=${`Versions of ${name}`} columns=${columns} rows=${rows} />`}<//>
  <//>`;
}

function Drift({ of }) {
  const [told, kind] = driftOf(of);
  return html`<${Chip} kind=${kind}>${told}<//>`;
}
