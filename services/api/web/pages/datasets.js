// Every dataset, and a place to drop new ones.

import { get } from "../api.js";
import { bytes, number } from "../parts/format.js";
import { useList } from "../parts/hooks.js";
import { DeleteDataset, More } from "../parts/lists.js";
import { Card, Empty, Loaded, Page, Table, When, useMay } from "../parts/ui.js";
import { Upload } from "../parts/upload.js";
import { to } from "../router.js";
import { html, useState } from "../vendor/preact.js";

export default function Datasets() {
  const list = useList((after) => get("/v1/datasets", { limit: 50, after }));
  const [doomed, setDoomed] = useState(null);
  const mayWrite = useMay("write");
  return html`<${Page} title="Datasets" lead="What judges are taught from, and what they are checked with.">
    ${mayWrite && html`<${Card} title="Upload" note="A file is kept whole or, if a line is wrong, not at all."><${Upload} onDone=${list.reload} /><//>`}
    <${Card} title="All datasets"><${Loaded} of=${list}>${(rows) =>
      rows.length ? html`<${List} rows=${rows} remove=${mayWrite && setDoomed} /><${More} of=${list} />` : html`<${Empty} title="No datasets yet"><p>Drop a file above: one instruction a line is enough.</p><//>`
    }<//><//>
    <${DeleteDataset} dataset=${doomed} onClose=${() => setDoomed(null)} onDone=${() => { setDoomed(null); list.reload(); }} />
  <//>`;
}

function List({ rows, remove }) {
  const columns = [
    { name: "Name", cell: (row) => html`<a href=${to(`/datasets/${row.id}`)}>${row.name}</a>` },
    { name: "Kind", cell: (row) => (row.benchmark ? `${row.kind}: ${row.benchmark}` : row.kind) },
    { name: "Rows", number: true, cell: (row) => number(row.rows) },
    { name: "Size", number: true, cell: (row) => bytes(row.bytes) },
    { name: "Uploaded", cell: (row) => html`<${When} at=${row.created_at} />` },
    remove && { name: "Delete", cell: (row) => html`<button class="small danger" aria-label=${`Delete ${row.name}`} onClick=${() => remove(row)}>Delete</button>` },
  ].filter(Boolean);
  return html`<${Table} caption="Datasets, newest first" columns=${columns} rows=${rows} />`;
}
