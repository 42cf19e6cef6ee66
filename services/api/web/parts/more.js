// Long lists of one path, a page at a time.

import { get } from "../api.js";
import { html } from "../vendor/preact.js";
import { useList } from "./hooks.js";
import { More } from "./lists.js";
import { Empty, Loading, Trouble } from "./ui.js";

const PAGE = 25;

// The list at `path`, begun anew when the query changes; `cursor` names the field that `after` takes.
export function useMore(path, query = {}, cursor = "id") {
  return useList((after) => get(path, { limit: PAGE, ...query, after }), [path, JSON.stringify(query)], (page) => page.data.at(-1)?.[cursor]);
}

// What `useMore` found, drawn by children(rows), with a button for what follows. `empty` and `why`: what is
// said where there is nothing.
export function Listed({ of, empty, why, children }) {
  if (of.rows === null) return of.error ? html`<${Trouble} error=${of.error} retry=${of.reload} />` : html`<${Loading} />`;
  return html`
    ${of.rows.length ? children(of.rows) : html`<${Empty} title=${empty}>${why}<//>`}
    ${of.error && html`<${Trouble} error=${of.error} />`}
    <${More} of=${of}>Show more<//>
  `;
}
