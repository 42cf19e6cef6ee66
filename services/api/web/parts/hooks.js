// What pages do with the API: load once, or keep up to date while somebody looks.

import { useCallback, useEffect, useRef, useState } from "../vendor/preact.js";

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
