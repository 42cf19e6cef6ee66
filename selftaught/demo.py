"""`make demo`: the whole loop on the embedded stack, watched live, with a report at the end.

Everything goes over HTTP, as a user's job would: upload, one job, its iterations, one `/judge`.
"""

from __future__ import annotations

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from selftaught.client import ENDED, Client
from selftaught.stack.handle import Stack
from selftaught.stack.spec import AlreadyRunning

Json = dict[str, Any]
WORLD = Path(str(files("seeds"))) / "smallworld" / "data"


def run(home: Path, recipe: str, console: Console) -> int:
    """Start or reuse the stack of `home`, run one job, write `home/demo/report.json`.

    Returns the exit status: 0 when the job succeeded.
    """
    url = ensure_stack(home, console)
    with Client(url) as client:
        console.print(f"gateway {url}  (API pages: {url}/docs)")
        dataset = client.upload(WORLD / "instructions.jsonl")
        labelled = client.upload(WORLD / "test.jsonl", kind="labelled")
        console.print(f"uploaded {dataset['rows']} instructions without labels: {dataset['id']}")
        console.print(f"uploaded {labelled['rows']} labelled pairs for scoring: {labelled['id']}")
        job = client.create_job(
            dataset=dataset["id"], labelled_dataset=labelled["id"], recipe=recipe
        )
        console.print(f"job {job['id']}: {url}/v1/jobs/{job['id']}")
        job = _watch(client, job, console)
        if job["state"] != "succeeded":
            console.print_json(data=job["error"] or {"state": job["state"]})
            return 1
        report = make_report(client, job)
    path = home / "demo" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    _tell(report, path, job, url, console)
    return 0


def ensure_stack(home: Path, console: Console) -> str:
    """The gateway's URL of this home's stack, started if it was not up."""
    stack = Stack(home, port=None, tied=False)
    started = time.monotonic()
    try:
        with console.status("starting Postgres, Redis and the services"):
            stack.start()
        console.print(f"stack up after {time.monotonic() - started:.1f} s")
    except AlreadyRunning:
        console.print("the stack is up already")
    return stack.gateway_url


def _watch(client: Client, job: Json, console: Console) -> Json:
    """Follow the job to its end: a live table on a terminal, a line per stage elsewhere."""
    if not console.is_terminal:
        console.width = 160  # a file has no width of its own
        return _watch_plainly(client, job, console)
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            job = client.job(job["id"])
            iterations = client.iterations(job["id"])
            live.update(_picture(iterations))
            if job["state"] in ENDED:
                live.update(table([row for row in map(row_of, iterations) if row]))
                return job
            time.sleep(0.5)


def _watch_plainly(client: Client, job: Json, console: Console) -> Json:
    seen = 0
    while True:
        job = client.job(job["id"])
        for event in client.events(job["id"], after=seen):
            seen = event["seq"]
            if event["type"] not in ("stage.progress", "stage.started", "train.step"):
                console.print(f"{event['created_at'][11:19]} {event['type']} {_short(event)}")
        if job["state"] in ENDED:
            rows = [row for row in map(row_of, client.iterations(job["id"])) if row]
            console.print(table(rows))
            return job
        time.sleep(0.5)


def _short(event: Json) -> str:
    text = json.dumps(event["data"], separators=(", ", ": "))
    return text if len(text) < 160 else text[:157] + "..."


def _picture(iterations: list[Json]) -> RenderableType:
    """The table so far, and a bar for each stage of the iteration that runs."""
    bars = Progress(
        TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )
    for iteration in iterations:
        if iteration["state"] != "running":
            continue
        for stage in iteration["stages"]:
            name = f"iteration {iteration['number']} {stage['kind']}"
            bars.add_task(name, total=stage["chunks"], completed=stage["chunks_done"])
    return Group(table([row for row in map(row_of, iterations) if row]), bars)


def row_of(iteration: Json) -> Json | None:
    """What the table and the report say of one iteration; None while it is not scored."""
    metrics = iteration["metrics"]
    if iteration["state"] != "succeeded" or "heldout" not in metrics:
        return None
    scored = metrics.get("labelled") or metrics["heldout"]
    counts = iteration["counts"]
    return {
        "iteration": iteration["number"],
        "model_version": iteration["model_version"],
        "pairs": counts.get("pairs", counts.get("judged_pairs", 0)),  # fixed pairs: only judged
        "judgments_sampled": counts.get("judgments_sampled", 0),
        "judgments_kept": counts.get("judgments_kept", 0),
        "training_examples": counts.get("training_examples", 0),
        "strict_accuracy": scored["strict_accuracy"],
        "ci95": scored["ci95"],
        "position_bias": scored["position_bias"],
        "parse_failures": scored["parse_failures"],
        "heldout_strict_accuracy": metrics["heldout"]["strict_accuracy"],
        "promoted": metrics["promoted"],
        "seconds": round(iteration["seconds"] or 0.0, 1),
    }


def table(rows: list[Json]) -> Table:
    """One line per scored iteration; iteration 0 is the seed."""
    out = Table(
        "iteration", "version", "pairs", "sampled", "kept", "examples", "strict accuracy",
        "95 % interval", "position bias", "parse failures", "latest", "seconds",
    )  # fmt: skip
    for row in rows:
        low, high = row["ci95"]
        out.add_row(
            "seed" if row["iteration"] == 0 else str(row["iteration"]),
            row["model_version"],
            str(row["pairs"]),
            str(row["judgments_sampled"]),
            str(row["judgments_kept"]),
            str(row["training_examples"]),
            f"{row['strict_accuracy']:.4f}",
            f"{low:.4f} to {high:.4f}",
            f"{row['position_bias']:+.4f}",
            f"{row['parse_failures']:.4f}",
            "yes" if row["promoted"] else "no",
            f"{row['seconds']:.1f}",
        )
    return out


def make_report(client: Client, job: Json) -> Json:
    """The report of a finished job, with one pair of the test set judged by its latest version."""
    rows = [row for row in map(row_of, client.iterations(job["id"])) if row]
    with (WORLD / "test.jsonl").open() as file:
        pair = json.loads(file.readline())
    judged = client.judge(
        pair["instruction"],
        pair["chosen"],
        pair["rejected"],
        model=f"{job['model']}:latest",
        explain=True,
    )
    asked = {
        "instruction": pair["instruction"],
        "response_a": pair["chosen"],
        "response_b": pair["rejected"],
    }
    return {
        "job": job["id"],
        "recipe": job["recipe"]["name"],
        "scored_on": "labelled" if job["labelled_dataset"] else "heldout",
        "seed": rows[0],
        "iterations": rows[1:],
        "judge_example": {"request": asked, "answer": judged},
    }


def _tell(report: Json, path: Path, job: Json, url: str, console: Console) -> None:
    example = report["judge_example"]
    before = 1 - report["seed"]["strict_accuracy"]
    after = 1 - report["iterations"][-1]["strict_accuracy"]
    console.print(f"strict error {before:.4f} -> {after:.4f} ({after / before - 1:+.0%})")
    console.print("\nPOST /judge", style="bold")
    for key, value in example["request"].items():
        console.print(f"  {key}: {value}")
    answer = example["answer"]
    console.print(
        f"  -> {answer['verdict']} by {answer['model']}, {answer['latency']['total']:.2f} s"
    )
    for order in answer["orders"]:
        console.print(f"     {order['order']}: {order['reasoning']}", markup=False)
    console.print(
        f"\nreport      {path}\n"
        f"job         {url}/v1/jobs/{job['id']}\n"
        f"iterations  {url}/v1/jobs/{job['id']}/iterations\n"
        f"versions    {url}/v1/models/{job['model']}/versions\n"
        f"API pages   {url}/docs\n"
        f"The stack keeps running; stop it with: selftaught down",
        soft_wrap=True,
    )
