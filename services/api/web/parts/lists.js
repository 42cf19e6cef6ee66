// What lists share: the button for more of them, and deleting a dataset.

import { remove } from "../api.js";
import { html } from "../vendor/preact.js";
import { number } from "./format.js";
import { useDeed } from "./hooks.js";
import { Dialog, tell, Trouble } from "./ui.js";

export function More({ of, children = "More" }) {
  if (!of.hasMore) return null;
  return html`<p><button onClick=${of.more} disabled=${of.loading}>${of.loading ? "Loading…" : children}</button></p>`;
}

export function DeleteDataset({ dataset, onClose, onDone }) {
  const [run, { busy, error }] = useDeed(async () => {
    await remove(`/v1/datasets/${dataset.id}`);
    tell(`${dataset.name} is deleted.`);
    onDone();
  });
  return html`<${Dialog} title="Delete this dataset?" open=${!!dataset} onClose=${onClose}>
    ${dataset && html`<div class="stack">
      <p><strong>${dataset.name}</strong>, ${number(dataset.rows)} rows. Its rows are gone for good; jobs and versions that were made from it stay, with its id and its hash.</p>
      <${Trouble} error=${error && error.status ? error : null} />
      <div class="actions"><button class="danger" disabled=${busy} onClick=${run}>Delete it</button><button onClick=${onClose}>Keep it</button></div>
    </div>`}
  <//>`;
}
