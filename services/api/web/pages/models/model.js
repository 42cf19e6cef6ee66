// A model: its versions, where each came from, its aliases and canaries.

import { get } from "../../api.js";
import { percent, signed } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import { LineChart } from "../../parts/charts.js";
import { Card, Loaded, Page, Table, Tabs, When, useMay } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html, useState } from "../../vendor/preact.js";
import { AliasCards } from "./aliases.js";
import { CanaryCards } from "./canaries.js";
import { Lineage } from "./lineage.js";
import { Promote } from "./promote.js";
import { Accuracy, Aliases, Decision, MOST_VERSIONS, Ref, api, fallen, link, loadModel, newest, setName, setsOf } from "./registry.js";

const TABS = [["versions", "Versions"], ["lineage", "Lineage"], ["aliases", "Aliases"], ["canaries", "Canaries"]];
const LIVE_SECONDS = 10;

export default function Model({ params: { name }, query: { tab = "versions" } }) {
  const model = useLoad((signal) => loadModel(name, signal), [name]);
  const aliases = useLoad((signal) => get(api(name, "aliases"), {}, signal), [name], LIVE_SECONDS);
  function changed() {
    model.reload();
    aliases.reload();
  }
  const named = aliases.data?.data || [];
  const latest = named.find((one) => one.alias === "latest");
  const lead = latest ? html`<span class="flag lead">latest</span> is <${Ref} of=${latest.version} />: it answers /judge.` : aliases.data && "No version of it is promoted yet.";
  const actions = html`<a class="button" href=${to("/playground", { a: `${name}:latest` })}>Try it</a><a class="button" href=${to("/reviews")}>Reviews</a>`;
  return html`<${Page} title=${name} lead=${lead} actions=${latest && actions} crumbs=${[["Models", to("/models")]]}>
    <${Tabs} tabs=${TABS} chosen=${tab} href=${(one) => to(link(name), { tab: one })} />
    <${Loaded} of=${aliases}>${() => html`<${Loaded} of=${model}>${(data) => html`<${Part} ...${{ name, tab, aliases: named, onChange: changed, ...data }} />`}<//>`}<//>
  <//>`;
}

function Part({ name, tab, versions, decisions, canaries, aliases, onChange }) {
  if (tab === "aliases") return html`<${AliasCards} ...${{ name, aliases, versions, onChange }} />`;
  if (tab === "canaries") return html`<${CanaryCards} ...${{ name, canaries, aliases, versions, onChange }} />`;
  // An alias is told anew more often than the versions are: rows say what it names now.
  const current = versions.map((one) => ({ ...one, aliases: aliases.filter(({ version }) => version === one.ref).map(({ alias }) => alias) }));
  const cut = versions.length === MOST_VERSIONS && html`<p class="note">The newest ${MOST_VERSIONS} versions.</p>`;
  if (tab === "lineage") return html`<${Card} title="Lineage" note="A version's parent judged what it was trained on.">${cut}<${Lineage} versions=${current} decisions=${decisions} /><//>`;
  return html`${setsOf(versions).length > 0 && html`<${Curves} versions=${current} />`}<${Versions} ...${{ versions: current, decisions, aliases, onChange }} />${cut}`;
}

function Curves({ versions }) {
  const sets = setsOf(versions);
  const ordered = versions.toReversed();
  const series = (value) =>
    sets.map((set) => ({
      name: setName(set),
      points: ordered.filter((one) => one.metrics[set]).map(({ number, job, metrics: { [set]: found } }) => ({ x: number, part: set === "heldout" ? job : null, ...value(found) })),
    }));
  const accuracy = ({ strict_accuracy, ci95 }) => ({ y: strict_accuracy, low: ci95?.[0], high: ci95?.[1] });
  return html`<div class="grid">
    <${Card}><${LineChart} title="Strict accuracy by version" x="version" y="strict accuracy" series=${series(accuracy)} told=${(value) => percent(value, 0)} />
      <p class="note">Right in both orders of the two responses, with 95 % intervals. Held-out pairs are a job's own: they compare versions of one job (the line breaks between two), a labelled set those of all.</p><//>
    <${Card}><${LineChart} title="Position bias by version" x="version" y="position bias" series=${series((found) => ({ y: found.position_bias }))} told=${(value) => signed(value, 2)} reference=${{ y: 0 }} />
      <p class="note">(A − B) / (A + B) of its verdicts: above 0 it prefers what is shown first; 0 has none.</p><//>
  </div>`;
}

function Versions({ versions, decisions, aliases, onChange }) {
  const [asked, setAsked] = useState(null);
  const may = useMay("promote");
  const decided = newest(decisions);
  const latest = aliases.find((one) => one.alias === "latest");
  const columns = [
    { name: "Version", cell: (one) => html`<span class="nowrap"><${Ref} of=${one.ref} /></span> <${Aliases} names=${one.aliases} />` },
    { name: "Parent", cell: (one) => (one.parent ? html`<${Ref} of=${one.parent} short />` : "–") },
    { name: "Made by", cell: (one) => (one.job ? html`<a href=${to(`/jobs/${one.job}`)} title=${one.job}>…${one.job.slice(-6)}</a>${one.iteration ? html` <span class="note nowrap">iteration ${one.iteration}</span>` : ""}` : "–") },
    ...setsOf(versions).map((set) => ({ name: setName(set), number: true, cell: (one) => html`<${Accuracy} of=${one.metrics[set]} />` })),
    { name: "Gate", cell: (one) => html`<${Decision} of=${decided.get(one.ref)} then=${fallen(latest, one.ref)} />` },
    { name: "Made", cell: (one) => html`<span class="nowrap"><${When} at=${one.created_at} /></span>` },
    ...(may ? [{ name: html`<span class="visually-hidden">Do</span>`, cell: (one) => !one.aliases.includes("latest") && html`<button class="small" aria-label=${`Promote ${one.ref}`} onClick=${() => setAsked(one.ref)}>Promote…</button>` }] : []),
  ];
  return html`<${Card} title="Versions" note="strict accuracy, with 95 % intervals">
    <${Table} caption="Versions, newest first" columns=${columns} rows=${versions} id=${(one) => one.ref} />
    <${Promote} version=${asked} aliases=${aliases} onClose=${() => setAsked(null)} onDone=${onChange} />
  <//>`;
}
