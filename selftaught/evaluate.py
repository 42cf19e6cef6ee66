"""`selftaught evaluate`, `register` and `batch`: the user's side, over HTTP only."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from selftaught import Client, JobFailed

Json = dict[str, Any]


def evaluate(client: Client, benchmark: Path, options: Json, console: Console) -> Json:
    """Upload a benchmark's file, judge it, wait; the evaluation as it ended.

    `options`: the fields of `EvaluationIn` but `dataset`, those that are None left out, and
    `benchmark`: which one the file is, where its fields do not say.
    """
    named = {"benchmark": options.pop("benchmark")} if options.get("benchmark") else {}
    dataset = client.datasets.upload(benchmark, "benchmark", **named)
    told = f"{benchmark.name}: {dataset.rows} examples of {dataset.benchmark}"
    console.print(told, markup=False)
    asked = {name: value for name, value in options.items() if value is not None}
    found = client.evaluations.create(dataset.id, **asked)
    total = min(dataset.rows, asked.get("limit") or dataset.rows)
    with _bars(console) as bars:
        task = bars.add_task(f"{found.model} judges", total=total)
        while not found.ended:
            time.sleep(0.5)
            bars.update(task, completed=found.refresh().examples_done)
    return found.model_dump(mode="json")


def batch(client: Client, pairs: Path, out: BinaryIO, options: Json, console: Console) -> Json:
    """Judge a file of pairs (JSONL), its results written to `out` as they come; how it ended.

    `options`: the fields of `BatchOptions`; those that are None are left out.
    """
    found = client.batches.create(pairs, **options)
    total = found.request_counts.total
    console.print(f"{found.id}: {total} pairs, judged by {found.model}")
    with _bars(console) as bars:
        task = bars.add_task(f"{found.model} judges", total=total)
        for result in found.results():
            out.write(json.dumps(result.model_dump(mode="json")).encode() + b"\n")
            bars.advance(task)
    return found.refresh().model_dump(mode="json")


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


def register(client: Client, options: Json) -> Json:
    """Make a base model a version; the job as it ended (`version`: its ref, if it succeeded)."""
    job = client.models.register(**{k: v for k, v in options.items() if v is not None})
    try:
        (iteration,) = job.wait().iterations()
    except JobFailed:
        return job.model_dump(mode="json")
    return {**job.model_dump(mode="json"), "version": iteration.model_version}


def tables(found: Json) -> Iterable[Table]:
    """One table for each scoring: every figure with its interval."""
    settings = found["settings"]
    votes = "greedy" if settings["votes"] == 1 else f"vote of {settings['votes']}"
    for score in found["scores"]:
        title = (
            f"{found['benchmark']}, {score['scoring']}: {found['model']}, "
            f"template {score['template']['name']} ({score['template']['sha256'][:8]}), {votes}, "
            f"seed {settings['seed']}"
        )
        table = Table("figure", "value", "95 % interval", title=title, title_justify="left")
        for one in score["figures"]:
            interval = f"{one['low']:.4f} to {one['high']:.4f}"
            table.add_row(one["name"], f"{one['value']:.4f}", interval)
        counts = {**score["counts"], **{k: found["counts"][k] for k in ("truncated", "too_long")}}
        table.caption = ", ".join(f"{key} {value}" for key, value in counts.items())
        yield table


def report(found: Json) -> str:
    """What two runs with one seed have in common, as JSON: no ids, no times."""
    settings = {k: v for k, v in found["settings"].items() if k not in ("name", "version")}
    return json.dumps({"settings": settings, "scores": found["scores"]}, indent=1) + "\n"
