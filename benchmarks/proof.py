"""The proof: the loop improves the judge and its controls do not. Writes docs/results.md.

    make proof        (goes on where an earlier run in the same home was stopped)

Every run is a job on the embedded stack, over HTTP, with the shipped seed and the shipped test set,
which nothing was trained or tuned on. The default's filter and the paper's, three loop seeds each,
and under each filter:

- the loop, every iteration trained from the seed as in the paper, and the loop continued, every
  iteration trained from the version before;
- controls on equal training tokens: random labels, the judge's own majority as the label, no labels
  (the paper's filter then keeps judgments as they come; the default's keeps its demand that both
  orders agree), and one round on the instructions and the training tokens of all five iterations.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console

from selftaught.client import ENDED, Client
from selftaught.demo import row_of
from selftaught.stack.handle import Stack

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("SELFTAUGHT_HOME", ROOT / ".selftaught" / "proof")).resolve()
WORLD = Path(str(files("seeds"))) / "smallworld" / "data"
SEEDS = (0, 1, 2)
AT_ONCE = 3  # jobs, so that no core waits while one job changes stages
FILTERS: dict[str, Json] = {
    "default": {},
    "paper's filter": {"both_orders": False, "agree": False, "min_share": 0.0},
}
VARIANTS: dict[str, Json] = {
    "continued": {"train": {"start": "previous"}},
    "one round": {
        "iterations": 1,  # with the instructions and the training tokens of all five
        "pair": {"instructions": 5 * 2700},
        "train": {"steps": 5 * 700},
    },
    "no labels": {"curate": {"label": "none"}},
    "random labels": {"curate": {"label": "random"}},
    "own majority": {"curate": {"label": "majority"}},
}


def arms() -> dict[str, Json]:
    """Every arm's overrides of the quickstart: the loop and its variants, under both filters."""
    found: dict[str, Json] = {name: {"curate": curate} for name, curate in FILTERS.items()}
    for variant, changed in VARIANTS.items():
        for name, curate in FILTERS.items():
            found[f"{name}, {variant}"] = {
                **changed,
                "curate": {**curate, **changed.get("curate", {})},
            }
    return found


ARMS = arms()
MARK = "<!-- written by hand from here on; `make proof` leaves it alone -->"
TODO = [f"{arm}/{seed}" for arm in ARMS for seed in SEEDS]
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run what is missing; the page is written anew whenever a job has finished."""
    console.print(f"state in {HOME}")
    stack = Stack(HOME, port=0, trainer_workers=2)
    with stack, Client(stack.gateway_url) as client:
        run_all(client)


def run_all(client: Client) -> None:
    """Run every job of TODO to its success, AT_ONCE at a time."""
    record = HOME / "jobs.json"
    known: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    if "instructions" not in known:
        known["instructions"] = client.upload(WORLD / "instructions.jsonl")["id"]
        known["test"] = client.upload(WORLD / "test.jsonl", kind="labelled")["id"]
    said: dict[str, int] = {}
    finished: list[str] = []
    started = time.monotonic()
    while len(finished) < len(TODO):
        states = {name: client.job(known[name])["state"] for name in TODO if name in known}
        bad = {name: state for name, state in states.items() if state in ("failed", "cancelled")}
        if bad:
            raise SystemExit(f"jobs did not succeed: {bad}")
        running = [name for name, state in states.items() if state not in ENDED]
        for name in TODO:
            if name not in known and len(running) < AT_ONCE:
                known[name] = start(client, known, name)
                running.append(name)
        record.write_text(json.dumps(known, indent=1))
        for name in TODO:
            if name in known:
                report_progress(client, name, known[name], said, started)
        if finished != (done := [name for name, state in states.items() if state in ENDED]):
            finished = done
            publish({name: collect(client, known[name]) for name in done})
        time.sleep(5)


def publish(results: dict[str, list[Json]]) -> None:
    text = render(results)
    page = ROOT / "docs" / "results.md"
    _, mark, kept = page.read_text().partition(MARK)
    page.write_text(f"{text}\n{mark}{kept}")
    (HOME / "results.json").write_text(json.dumps(results, indent=1))
    console.print(text, markup=False)


def start(client: Client, known: dict[str, str], name: str) -> str:
    arm, seed = name.rsplit("/", 1)
    job = client.create_job(
        dataset=known["instructions"],
        labelled_dataset=known["test"],
        recipe="quickstart",
        overrides={"seed": int(seed), **ARMS[arm]},
        model=re.sub("[^a-z0-9]+", "-", name),
    )
    return str(job["id"])


def report_progress(
    client: Client, name: str, job_id: str, said: dict[str, int], started: float
) -> None:
    rows = collect(client, job_id)
    for row in rows[said.get(name, 0) :]:
        console.print(
            f"{time.monotonic() - started:6.0f} s  {name}  iteration {row['iteration']}  "
            f"strict {row['strict_accuracy']:.4f}  examples {row['training_examples']}  "
            f"{row['seconds']:.0f} s"
        )
    said[name] = len(rows)


def collect(client: Client, job_id: str) -> list[Json]:
    rows = []
    for iteration in client.iterations(job_id):
        if row := row_of(iteration):
            rows.append({**row, "train_tokens": iteration["counts"].get("train_tokens", 0)})
    return rows


def render(results: dict[str, list[Json]]) -> str:
    """The page: means over loop seeds, every run, and how it was made."""
    first = next(iter(results.values()))
    numbers = range(max(len(run) for run in results.values()))
    seed_error = 1 - first[0]["strict_accuracy"]
    lines = [
        "# Results: the loop on the small world",
        "",
        "Strict accuracy (right in both orders) on the shipped test set: "
        f"{sum(1 for _ in (WORLD / 'test.jsonl').open())} labelled pairs, made with a corruption "
        "that the seed never saw; no training touched them and no choice was tuned on them. "
        "The same seed model in every run; every iteration trains on the same number of tokens, "
        "from the seed or (continued) from the version before, and one round on as many as five "
        "iterations together. "
        f"{len(results)} of {len(TODO)} runs are finished. How seed, settings and test "
        "set came about: [seeds/README.md](../seeds/README.md), Splits.",
        "",
        "## Mean over loop seeds",
        "",
        "| arm | loop seeds | "
        + " | ".join("seed" if n == 0 else str(n) for n in numbers)
        + " | error falls by | tokens trained in all |",
        "|---|" + "---|" * (len(numbers) + 3),
    ]
    for arm in ARMS:
        names = [f"{arm}/{seed}" for seed in SEEDS]
        runs = [results[name] for name in names if name in results]
        if not runs:
            continue
        means = [statistics.mean(column) for column in zip(*map(accuracies, runs), strict=True)]
        fall = 1 - (1 - means[-1]) / seed_error
        tokens = statistics.mean(sum(row["train_tokens"] for row in run) for run in runs)
        cells = " | ".join(
            [*(f"{mean:.4f}" for mean in means), *[""] * (len(numbers) - len(means))]
        )
        lines.append(f"| {arm} | {len(runs)} | {cells} | **{fall:.1%}** | {tokens:,.0f} |")
    lines += [
        "",
        "## Every run",
        "",
        "| run | iteration | strict accuracy | 95 % interval | position bias | parse failures "
        "| pairs | sampled | kept | examples | held-out strict | promoted | seconds |",
        "|---|" + "---|" * 12,
    ]
    for name, rows in results.items():
        for row in rows:
            low, high = row["ci95"]
            lines.append(
                f"| {name} | {row['iteration']} | {row['strict_accuracy']:.4f} "
                f"| {low:.4f} to {high:.4f} | {row['position_bias']:+.4f} "
                f"| {row['parse_failures']:.4f} | {row['pairs']} | {row['judgments_sampled']} "
                f"| {row['judgments_kept']} | {row['training_examples']} "
                f"| {row['heldout_strict_accuracy']:.4f} | {'yes' if row['promoted'] else 'no'} "
                f"| {row['seconds']:.0f} |"
            )
    lines += [
        "",
        f"Seconds are wall-clock with {AT_ONCE} jobs at a time, so they are no measure of one job.",
        "",
        f"Made by `make proof` at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}.",
        "",
    ]
    return "\n".join(lines)


def accuracies(run: list[Json]) -> list[float]:
    return [row["strict_accuracy"] for row in run]


def commit() -> str:
    """The code that ran; the page that this script itself writes does not make it dirty."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs/results.md")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


if __name__ == "__main__":
    main()
