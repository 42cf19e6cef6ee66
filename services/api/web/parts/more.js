// Long lists, a page at a time.

import { get } from "../api.js";
import { html, useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { Empty, Loading, Trouble } from "./ui.js";

const PAGE = 25;

// {rows, error, busy, hasMore, more, reload}: the list at `path`, begun anew when the query changes.
export function useMore(path, query = {}, cursor = "id") {
  const [state, setState] = useState({ rows: null, error: null, busy: true, hasMore: false });
  const [turn, setTurn] = useState(0);
  const asked = JSON.stringify(query);
  const current = useRef(null);
  async function load(abort, rows) {
    setState((old) => ({ ...old, busy: true }));
    try {
      const page = await get(path, { limit: PAGE, ...query, after: rows.at(-1)?.[cursor] }, abort.signal);
      setState({ rows: [...rows, ...page.data], error: null, busy: false, hasMore: page.has_more });
    } catch (error) {
      if (error.name !== "AbortError") setState((old) => ({ ...old, error, busy: false }));
    }
  }
  useEffect(() => {
    const abort = (current.current = new AbortController());
    load(abort, []);
    return () => abort.abort();
  }, [path, asked, turn]);
  const more = () => load(current.current, state.rows);
  return { ...state, more, reload: useCallback(() => setTurn((n) => n + 1), []) };
}

// What `useMore` found, drawn by children(rows), with a button for what follows.
export function More({ of, empty, children }) {
  if (of.rows === null) return of.error ? html`<${Trouble} error=${of.error} retry=${of.reload} />` : html`<${Loading} />`;
  return html`
    ${of.rows.length ? children(of.rows) : html`<${Empty} title=${empty} />`}
    ${of.error && html`<${Trouble} error=${of.error} />`}
    ${of.hasMore && html`<p><button disabled=${of.busy} onClick=${of.more}>${of.busy ? "Loading…" : "Show more"}</button></p>`}
  `;
}
