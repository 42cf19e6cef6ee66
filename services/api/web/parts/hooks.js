// What pages do with the API: load once, or keep up to date while somebody looks.

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";

// {data, error, loading, reload}. `load(signal)` is called at once and when `inputs` change; with
// `seconds`, again and again while the tab is visible. After a failure the old data stays.
export function useLoad(load, inputs = [], seconds = 0) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const newest = useRef(load);
  newest.current = load;
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    let timer;
    let alive = true;
    async function once() {
      if (document.hidden && seconds) return later();
      try {
        const data = await newest.current(abort.signal);
        if (alive) setState({ data, error: null, loading: false });
      } catch (error) {
        if (alive && error.name !== "AbortError") setState((old) => ({ ...old, error, loading: false }));
      }
      return later();
    }
    function later() {
      if (alive && seconds) timer = setTimeout(once, seconds * 1000);
    }
    setState((old) => (turn ? old : { data: null, error: null, loading: true }));
    once();
    return () => {
      alive = false;
      abort.abort();
      clearTimeout(timer);
    };
  }, [...inputs, seconds, turn]);
  return { ...state, reload: useCallback(() => setTurn((n) => n + 1), []) };
}

// A list that grows page by page: {rows, error, loading, hasMore, more, reload}. `next(page)` is what
// `after` takes for the page that follows.
export function useList(load, inputs = [], next = (page) => page.data.at(-1)?.id) {
  const [state, setState] = useState({ rows: null, error: null, loading: true, after: undefined, hasMore: false });
  const [turn, setTurn] = useState(0);
  const asked = useRef(0);
  const newest = useRef(load);
  newest.current = load;
  const fetchPage = useCallback(async (rows, after) => {
    const mine = ++asked.current; // an answer to an older question is not shown
    setState((old) => ({ ...old, loading: true, error: null }));
    try {
      const page = await newest.current(after);
      if (mine !== asked.current) return;
      setState({ rows: [...rows, ...page.data], error: null, loading: false, after: next(page), hasMore: page.has_more });
    } catch (error) {
      if (mine === asked.current) setState((old) => ({ ...old, error, loading: false }));
    }
  }, []);
  useEffect(() => {
    setState((old) => (turn ? old : { ...old, rows: null, hasMore: false }));
    fetchPage([], undefined);
    return () => {
      asked.current += 1;
    };
  }, [...inputs, turn]);
  const { rows, error, loading, after, hasMore } = state;
  return {
    rows, error, loading, hasMore,
    data: rows, // as Loaded wants it
    more: () => !loading && fetchPage(rows, after),
    reload: useCallback(() => setTurn((n) => n + 1), []),
  };
}

// [run, {busy, error}]: something that a button does. It is not done twice at a time.
export function useDeed(deed) {
  const [state, setState] = useState({ busy: false, error: null });
  const newest = useRef(deed);
  newest.current = deed;
  const run = useCallback(async (...given) => {
    setState({ busy: true, error: null });
    try {
      const found = await newest.current(...given);
      setState({ busy: false, error: null });
      return found;
    } catch (error) {
      setState({ busy: false, error });
      return undefined;
    }
  }, []);
  return [run, state];
}

// [ref, pixels]: how wide the element is that gets the ref, `start` before it is there.
export function useWidth(start) {
  const box = useRef(null);
  const [width, setWidth] = useState(start);
  useLayoutEffect(() => {
    if (!box.current) return undefined;
    const seen = new ResizeObserver(([{ contentRect }]) => contentRect.width && setWidth(Math.round(contentRect.width)));
    seen.observe(box.current);
    return () => seen.disconnect();
  });
  return [box, width];
}
