// Single keys that do something on a page, but never while somebody types.

import { useEffect, useRef } from "../vendor/preact.js";

const TYPES_INTO = "input:not([type=checkbox], [type=radio]), textarea, select, dialog[open], [contenteditable]";

// deeds: {key: what it does}
export function useKeys(deeds) {
  const newest = useRef(deeds);
  newest.current = deeds;
  useEffect(() => {
    function pressed(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(TYPES_INTO)) return;
      if (document.querySelector("dialog[open]")) return;
      const deed = newest.current[event.key];
      if (!deed) return;
      event.preventDefault();
      deed();
    }
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
