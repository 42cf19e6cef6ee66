// Every setting of a job, to read and to copy; first what differs from the named recipe.

import { get } from "../../api.js";
import { useLoad } from "../../parts/hooks.js";
import { Card, Copy, Table } from "../../parts/ui.js";
import { html } from "../../vendor/preact.js";

// [["train.steps", 500], …]: lists and empty objects are values.
export function flat(tree, path = "") {
  return Object.entries(tree).flatMap(([name, value]) => {
    const here = path ? `${path}.${name}` : name;
    const inner = value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0;
    return inner ? flat(value, here) : [[here, value]];
  });
}

export const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));

export default function Recipe({ job }) {
  const named = useLoad((signal) => (job.kind === "loop" ? get("/v1/recipes", {}, signal) : { data: [] }), [job.id]);
  const origin = named.data?.data.find((one) => one.name === job.recipe.name);
  const usual = new Map(origin ? flat(origin) : []);
  const own = new Map(flat(job.recipe));
  const names = [...new Set([...usual.keys(), ...own.keys()])].filter((name) => own.has(name)); // in the recipe's order
  const rows = names.map((name) => ({ id: name, name, value: written(own.get(name)), usual: usual.has(name) ? written(usual.get(name)) : undefined }));
  const changed = rows.filter((row) => row.usual !== undefined && row.usual !== row.value);
  const columns = [
    { name: "Setting", cell: (row) => html`<code>${row.name}</code>` },
    { name: "Value", cell: (row) => html`<span class="long mono">${row.value}</span>` },
  ];
  const before = { name: `In ${origin?.name}`, cell: (row) => html`<span class="long mono">${row.usual}</span>` };
  const text = JSON.stringify(job.recipe, null, 2);
  return html`
    ${origin && html`<${Card} title=${`What differs from the recipe ${origin.name}`}>
      ${changed.length ? html`<${Table} caption="Settings that differ" columns=${[...columns, before]} rows=${changed} />` : html`<p class="note">Nothing: every setting is as that recipe has it.</p>`}
    <//>`}
    <${Card} title="As JSON" note="a recipe to post again" actions=${html`<${Copy} text=${text} />`}><details><summary>Show it</summary><pre>${text}</pre></details><//>
    <${Card} title="All settings"><${Table} caption="Every setting" columns=${columns} rows=${rows} /><//>
  `;
}
