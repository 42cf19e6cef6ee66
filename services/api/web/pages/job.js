// One job of any kind: how far it is, what came of it, and what can be asked of it.

import { get } from "../api.js";
import { words } from "../parts/format.js";
import { useLoad } from "../parts/hooks.js";
import { Chip, Loaded, Page, Tabs } from "../parts/ui.js";
import { to } from "../router.js";
import { html, useEffect, useRef } from "../vendor/preact.js";
import Controls from "./job/controls.js";
import Cost from "./job/cost.js";
import Data from "./job/data.js";
import Events, { useEvents } from "./job/events.js";
import Overview from "./job/overview.js";
import Quality from "./job/quality.js";
import Recipe from "./job/recipe.js";
import Training from "./job/training.js";

const TABS = {
  loop: ["overview", "quality", "data", "training", "cost", "events", "recipe"],
  other: ["overview", "cost", "events", "recipe"],
};
const NAMES = {
  overview: ["Overview", Overview], quality: ["Quality", Quality], data: ["Data", Data], training: ["Training", Training],
  cost: ["Cost", Cost], events: ["Events", Events], recipe: ["Recipe", Recipe],
};
const ENDED = ["succeeded", "failed", "cancelled"];
const GOING_SECONDS = 5; // what events do not tell of: the time that goes by
const NEWS_SECONDS = 1.5;

export default function Job({ params: { id }, query }) {
  const ended = useRef(false);
  const path = `/v1/jobs/${id}`;
  const both = useLoad(
    async (signal) => {
      const [job, iterations] = await Promise.all([get(path, {}, signal), get(`${path}/iterations`, {}, signal)]);
      return { job, iterations: iterations.data };
    },
    [id],
    ended.current ? 0 : GOING_SECONDS,
  );
  ended.current = both.data !== null && ENDED.includes(both.data.job.state);
  return html`<${Loaded} of=${both}>${({ job, iterations }) => html`<${Found} job=${job} iterations=${iterations} query=${query} reload=${both.reload} />`}<//>`;
}

function Found({ job, iterations, query, reload }) {
  const soon = useRef(null);
  const news = () => {
    soon.current ??= setTimeout(() => {
      soon.current = null;
      reload();
    }, NEWS_SECONDS * 1000);
  };
  useEffect(() => () => clearTimeout(soon.current), []);
  const events = useEvents(job.id, job.retried_at, news);
  const tabs = TABS[job.kind] || TABS.other;
  const tab = tabs.includes(query.tab) ? query.tab : "overview";
  const [, Shown] = NAMES[tab];
  const href = (name) => to(`/jobs/${job.id}`, { tab: name === "overview" ? undefined : name, iteration: query.iteration });
  const title = job.kind === "loop" ? job.model : `${words(job.kind)} of ${job.recipe.ref || job.model}`;
  const lead = html`<${Chip} state=${job.state} /> <code>${job.id}</code>`;
  return html`<${Page} title=${title[0].toUpperCase() === title[0] || job.kind === "loop" ? title : title[0].toUpperCase() + title.slice(1)} lead=${lead} crumbs=${[["Jobs", to("/")]]} actions=${html`<${Controls} job=${job} reload=${reload} />`}>
    <${Tabs} tabs=${tabs.map((name) => [name, NAMES[name][0]])} chosen=${tab} href=${href} />
    <${Shown} job=${job} iterations=${iterations} events=${events} query=${query} tab=${tab} />
  <//>`;
}
