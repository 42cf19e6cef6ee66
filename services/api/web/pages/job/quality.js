// How good each iteration's version is: accuracy with intervals, position bias, benchmarks, the gate.

import { all } from "../../api.js";
import { LineChart } from "../../parts/charts.js";
import { number, percent, share, signed, words } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import { chosen, Choice, points, Rule, setName, setsOf, VersionLink } from "../../parts/iterations.js";
import { Card, Chip, Empty, Loaded, Table } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html } from "../../vendor/preact.js";

const LINES = 6; // as many colours as there are
const whole = (x) => String(x);

export default function Quality({ job, iterations, query }) {
  const scored = iterations.filter((one) => one.metrics.heldout);
  if (!scored.length) return html`<${Card} title="Accuracy"><${Empty} title="Nothing is scored yet"><p>The seed is scored at the end of iteration 0, every version at the end of its iteration.</p><//><//>`;
  const sets = setsOf(scored);
  const lines = (figure, interval) => sets.map((set) => ({ name: setName(set), points: points(scored, set, figure, interval) }));
  return html`
    <div class="grid">
      <${Card}><${LineChart} title="Strict accuracy" x="iteration" y="accuracy" series=${lines("strict_accuracy", "ci95")} told=${percent} toldX=${whole} />
        <p class="note">The share of pairs that are judged rightly in both orders, with 95 % intervals. Iteration 0 is the seed.</p><//>
      <${Card}><${LineChart} title="Position bias" x="iteration" y="bias" series=${lines("position_bias")} told=${(y) => signed(y, 2)} toldX=${whole} reference=${{ y: 0, name: "none" }} />
        <p class="note">Verdicts for the response shown first less those for the other one, as a share. 0 is fair; 1 is always the first.</p><//>
    </div>
    <${Subsets} scored=${scored} sets=${sets} />
    <${Benchmarks} job=${job} iterations=${iterations} />
    <${Gate} job=${job} iterations=${scored} query=${query} />
    <${Calibration} iterations=${scored} />
    <${All} iterations=${scored} sets=${sets} />
  `;
}

// A labelled set's own parts: one line each, those with most pairs.
function Subsets({ scored, sets }) {
  const cards = sets.flatMap((set) => {
    const sizes = new Map();
    for (const { metrics } of scored) for (const [name, of] of Object.entries(metrics[set]?.subsets || {})) sizes.set(name, of.n);
    if (!sizes.size) return [];
    const names = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a) || a.localeCompare(b, "en", { numeric: true }));
    const series = names.slice(0, LINES).map((name) => ({
      name: `${words(name)} (${number(sizes.get(name))})`,
      points: points(scored.map((one) => ({ number: one.number, metrics: one.metrics[set]?.subsets || {} })), name, "strict_accuracy", "ci95"),
    }));
    return html`<${Card} key=${set}><${LineChart} title=${`Strict accuracy by section: ${setName(set)}`} x="iteration" y="accuracy" series=${series} told=${percent} toldX=${whole} />
      <p class="note">In brackets: pairs.${names.length > LINES ? ` The ${LINES} largest of ${names.length} sections.` : ""}</p><//>`;
  });
  return cards.length > 0 && html`<div class="grid">${cards}</div>`;
}

// Evaluations of this job's versions: a chart for each benchmark and way of scoring, a line for each section.
function Benchmarks({ job, iterations }) {
  const numbers = new Map(iterations.filter((one) => one.model_version).map((one) => [one.model_version, one.number]));
  const found = useLoad(() => all("/v1/evaluations", { model: job.model }, "id", 500), [job.id, numbers.size]);
  return html`<${Loaded} of=${found}>${(evaluations) => {
    const groups = new Map();
    for (const one of evaluations.toReversed()) // the newest of several wins
      if (one.state === "succeeded" && numbers.has(one.model))
        for (const score of one.scores)
          for (const figure of score.figures.filter((one) => one.name === "overall" || one.name.startsWith("section/"))) {
            const group = `${one.benchmark}, ${score.scoring} scoring`;
            if (!groups.has(group)) groups.set(group, new Map());
            const lines = groups.get(group);
            if (!lines.has(figure.name)) lines.set(figure.name, new Map());
            lines.get(figure.name).set(numbers.get(one.model), { x: numbers.get(one.model), y: figure.value, low: figure.low, high: figure.high });
          }
    if (!groups.size) return html`<${Card} title="Benchmarks"><${Empty} title="No version of this job was evaluated on a benchmark"><p>Upload one as a dataset and post an evaluation: <code>selftaught evaluate</code>.</p><//><//>`;
    return html`<div class="grid">${[...groups].map(([name, lines]) => html`<${Card} key=${name}><${LineChart} title=${name} x="iteration" y="score" told=${percent} toldX=${whole}
      series=${[...lines].slice(0, LINES).map(([line, at]) => ({ name: words(line.replace("section/", "")), points: [...at.values()].sort((a, b) => a.x - b.x) }))} />
      <p class="note">With 95 % bootstrap intervals.${lines.size > LINES ? ` The first ${LINES} of ${lines.size} sections; an evaluation's own page has all.` : ""}</p><//>`)}</div>`;
  }}<//>`;
}

// Shares in percent; position bias is none.
const figure = ({ rule }, value) => (rule === "position_bias" ? share(value) : rule === "reviews" && value > 1 ? number(value) : percent(value));

function Gate({ job, iterations, query }) {
  const decided = iterations.filter((one) => one.metrics.promoted !== undefined);
  const current = chosen(decided, query);
  if (!current) return null;
  const { promoted, findings = [] } = current.metrics;
  const rows = findings.map((one, at) => ({ id: String(at), ...one }));
  const columns = [
    { name: "Rule", cell: (one) => html`<${Rule} of=${one.rule} />` },
    { name: "Result", cell: (one) => html`<${Chip} kind=${one.passed ? "good" : "bad"}>${one.passed ? "passed" : "failed"}<//>` },
    { name: "On", cell: (one) => (one.set ? setName(one.set) : "–") },
    { name: "Found", number: true, cell: (one) => figure(one, one.got) },
    { name: "Needed", number: true, cell: (one) => (one.needed === null || one.needed === undefined ? "–" : `${["position_bias", "parse_failures"].includes(one.rule) ? "at most" : "at least"} ${figure(one, one.needed)}`) },
    { name: "In words", cell: (one) => html`<span class="note">${one.detail}</span>` },
  ];
  const failed = findings.filter((one) => !one.passed).length;
  return html`<${Card} title=${`The gate's decision about iteration ${current.number}`} actions=${html`<${Choice} iterations=${decided} current=${current} job=${job} tab="quality" />`}>
    <p><${Chip} kind=${promoted ? "good" : "bad"}>${promoted ? "promoted" : "refused"}<//> ${current.model_version && html`<${VersionLink} version=${current.model_version} />`} ${promoted ? "became" : "did not become"} <code>latest</code>${promoted ? "" : `: ${failed} of ${findings.length} rules failed`}.</p>
    <${Table} caption="Rules of the gate" columns=${columns} rows=${rows} />
  <//>`;
}

function Calibration({ iterations }) {
  const rows = iterations.filter((one) => one.metrics.heldout.calibration);
  if (!rows.length) return null;
  const of = (one) => one.metrics.heldout.calibration;
  const columns = [
    { name: "Iteration", cell: (one) => one.number },
    { name: "Temperature", number: true, cell: (one) => share(of(one).temperature, 2) },
    { name: "Pairs", number: true, cell: (one) => number(of(one).n) },
    { name: "Calibration error, before", number: true, cell: (one) => share(of(one).ece_before) },
    { name: "after", number: true, cell: (one) => share(of(one).ece_after) },
    { name: "Brier score, before", number: true, cell: (one) => share(of(one).brier_before) },
    { name: "after", number: true, cell: (one) => share(of(one).brier_after) },
  ];
  return html`<${Card} title="Calibration" note="what makes the odds of a verdict honest, fitted on held-out pairs"><${Table} caption="Calibration by iteration" columns=${columns} rows=${rows} /><//>`;
}

function All({ iterations, sets }) {
  const rows = iterations.toReversed().flatMap(({ number: at, metrics }) => sets.filter((set) => metrics[set]).map((set) => ({ id: `${at} ${set}`, at, set, of: metrics[set] })));
  const columns = [
    { name: "Iteration", cell: (row) => row.at },
    { name: "Set", cell: (row) => html`<span class="nowrap">${setName(row.set)}</span>` },
    { name: "Pairs", number: true, cell: (row) => number(row.of.n) },
    { name: "Strict", number: true, cell: (row) => percent(row.of.strict_accuracy) },
    { name: "95 % interval", number: true, cell: (row) => (row.of.ci95 ? `${percent(row.of.ci95[0])} to ${percent(row.of.ci95[1])}` : "–") },
    { name: "Mean", number: true, cell: (row) => percent(row.of.mean_accuracy) },
    { name: "If first", number: true, cell: (row) => percent(row.of.accuracy_winner_first) },
    { name: "If last", number: true, cell: (row) => percent(row.of.accuracy_winner_last) },
    { name: "Bias", number: true, cell: (row) => (row.of.position_bias === null ? "–" : signed(row.of.position_bias, 2)) },
    { name: "Ties", number: true, cell: (row) => percent(row.of.ties) },
    { name: "Unreadable", number: true, cell: (row) => percent(row.of.parse_failures) },
  ];
  return html`<${Card} title="All figures" note="newest iteration first; mean of both orders, and if the better response is shown first or last"><${Table} caption="Figures of every iteration and set" columns=${columns} rows=${rows} /><//>`;
}
