// What each iteration's training did: loss and learning rate by step, and how its checkpoints scored.

import { LineChart } from "../../parts/charts.js";
import { number, percent, share, short } from "../../parts/format.js";
import { chosen, Choice } from "../../parts/iterations.js";
import { Card, Chip, Empty, Facts, Table } from "../../parts/ui.js";
import { html } from "../../vendor/preact.js";

const LINES = 6;
const small = (value) => (value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : value.toPrecision(3));

// A training's points {step, loss, learning_rate}: what it published, or while it runs what it says.
function curve(iteration, events) {
  const kept = iteration.metrics.train?.curve;
  if (kept) return kept;
  const said = events.filter((one) => one.type === "train.step" && one.data.iteration === iteration.number).map((one) => one.data);
  return [...new Map(said.map((one) => [one.step, one])).values()].sort((a, b) => a.step - b.step); // a resumed one repeats steps
}

export default function Training({ job, iterations, events: { events }, query }) {
  const trained = iterations.filter((one) => one.metrics.train || curve(one, events).length > 0);
  if (!trained.length) return html`<${Card} title="Loss"><${Empty} title="No training has begun yet"><p>Each iteration trains one version, from iteration 1 on.</p><//><//>`;
  const current = chosen(trained, query);
  const newest = trained.slice(-LINES);
  const line = (one, figure) => ({ name: `iteration ${one.number}`, points: curve(one, events).map((p) => ({ x: p.step, y: p[figure] })) });
  const train = current.metrics.train;
  return html`
    <div class="grid">
      <${Card}><${LineChart} title="Training loss" x="step" y="loss" series=${newest.map((one) => line(one, "loss"))} told=${small} />
        <p class="note">Nats for each token of a judgment${job.recipe.train.objective === "sft_dpo" ? ", plus the loss of DPO" : ""}.${trained.length > LINES ? ` The newest ${LINES} of ${trained.length} iterations.` : ""} Loss on held-out rows is not measured: checkpoints are chosen by how well they judge.</p><//>
      <${Card}><${LineChart} title=${`Learning rate of iteration ${current.number}`} x="step" y="rate" series=${[line(current, "learning_rate")]} told=${small} />
        <${WarmUp} settings=${job.recipe.train} steps=${train?.steps} /><//>
    </div>
    <${Card} title=${`Training of iteration ${current.number}`} actions=${html`<${Choice} iterations=${trained} current=${current} job=${job} tab="training" />`}>
      ${train
        ? html`<${Facts} pairs=${[
            ["Objective", train.objective], ["Begins at", train.start === "seed" ? "the seed" : "the version before"], ["Examples", number(train.examples)],
            train.examples_too_long > 0 && ["Too long, left out", number(train.examples_too_long)],
            ["Steps", number(train.steps)], ["Passes", train.epochs.toFixed(2)], ["Tokens", short(train.train_tokens)], ["Tokens with loss", short(train.loss_tokens)],
            ["Final loss", small(train.final_loss)], train.resumed_from > 0 && ["Went on from step", number(train.resumed_from)],
          ]} /><${Checkpoints} train=${train} />`
        : html`<${Empty} title="This training is under way"><p>What it did is told when it ends.</p><//>`}
    <//>
    <${Runs} iterations=${trained.filter((one) => one.metrics.train)} />
  `;
}

function WarmUp({ settings: { warmup_steps: warmup, schedule, final_lr_share: last, steps: planned }, steps = planned }) {
  const told = `Warm-up: ${number(warmup)}${warmup === 1 ? " step" : " steps"}`;
  if (steps && warmup >= steps) return html`<p class="note"><${Chip} kind="warn">the run ends within its warm-up<//> ${told}, of ${number(steps)} in all: the rate never falls.</p>`;
  return html`<p class="note">${told}; then it falls (${schedule}) to ${percent(last, 0)} of the peak.</p>`;
}

function Checkpoints({ train }) {
  const columns = [
    { name: "Checkpoint", cell: (one) => html`step ${number(one.step)} ${one.step === train.checkpoint.step && html`<${Chip} kind="good">became the version<//>`}` },
    { name: "Strict accuracy", number: true, cell: (one) => percent(one.strict_accuracy) },
    { name: "95 % interval", number: true, cell: (one) => (one.ci95 ? `${percent(one.ci95[0])} to ${percent(one.ci95[1])}` : "–") },
    { name: "Mean of orders", number: true, cell: (one) => percent(one.mean_accuracy) },
    { name: "Position bias", number: true, cell: (one) => share(one.position_bias, 2) },
    { name: "Pairs", number: true, cell: (one) => number(one.n) },
  ];
  return html`<h3>Checkpoints</h3>
    <p class="note">Scored on ${number(train.chosen_on_pairs)} pairs that neither training nor the gate sees; the best one became the version.</p>
    <${Table} caption="Checkpoints" columns=${columns} rows=${train.checkpoints} id=${(one) => one.step} />`;
}

function Runs({ iterations }) {
  if (iterations.length < 2) return null;
  const of = (figure) => (one) => figure(one.metrics.train);
  const columns = [
    { name: "Iteration", cell: (one) => one.number },
    { name: "Examples", number: true, cell: of((train) => number(train.examples)) },
    { name: "Steps", number: true, cell: of((train) => number(train.steps)) },
    { name: "Passes", number: true, cell: of((train) => train.epochs.toFixed(2)) },
    { name: "Final loss", number: true, cell: of((train) => small(train.final_loss)) },
    { name: "Chosen step", number: true, cell: of((train) => number(train.checkpoint.step)) },
    { name: "Its accuracy", number: true, cell: of((train) => percent(train.checkpoint.strict_accuracy)) },
  ];
  return html`<${Card} title="All trainings" note="newest first"><${Table} caption="Every training, newest first" columns=${columns} rows=${iterations.toReversed()} /><//>`;
}
