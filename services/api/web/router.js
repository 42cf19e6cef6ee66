// Addresses are `#/jobs/job_1?tab=events`: the gateway serves one page, and links stay links.

import { useLayoutEffect, useState } from "./vendor/preact.js";

function here() {
  const [path, query = ""] = (location.hash.slice(1) || "/").split("?");
  return { path: path || "/", query: Object.fromEntries(new URLSearchParams(query)) };
}

// {path, query}, kept up to date.
export function useAddress() {
  const [address, setAddress] = useState(here);
  useLayoutEffect(() => { // at once: an address that changes before the first paint is not missed
    const moved = () => {
      setAddress(here());
      scrollTo(0, 0);
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return address;
}

// {named parts} of a path that fits a pattern as `/jobs/:id`, or null.
export function match(pattern, path) {
  const wanted = pattern.split("/");
  const parts = path.split("/");
  if (wanted.length !== parts.length) return null;
  const found = {};
  for (const [at, part] of wanted.entries()) {
    if (part.startsWith(":")) {
      try {
        found[part.slice(1)] = decodeURIComponent(parts[at]);
      } catch {
        return null; // no such page: an address with a stray %
      }
    } else if (part !== parts[at]) return null;
  }
  return found;
}

// A link's address: every part and query value is escaped.
export function to(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(given).toString();
  return `#${path}${text ? `?${text}` : ""}`;
}

export const go = (path, query) => {
  location.hash = to(path, query);
};
