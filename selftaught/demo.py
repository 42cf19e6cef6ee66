"""`make demo`: the whole loop on the embedded stack, watched live, with a report at the end.

Everything goes over HTTP, as a user's job would: upload, one job, its iterations, one `/judge`.
"""

from __future__ import annotations

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console

from selftaught import Client
from selftaught.cli.jobs import followed
from selftaught.cli.watch import PATIENCE
from selftaught.iterations import row_of
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
        dataset = client.datasets.upload(WORLD / "instructions.jsonl")
        labelled = client.datasets.upload(WORLD / "test.jsonl", "labelled")
        console.print(f"uploaded {dataset.rows} instructions without labels: {dataset.id}")
        console.print(f"uploaded {labelled.rows} labelled pairs for scoring: {labelled.id}")
        started = client.jobs.create(dataset.id, labelled_dataset=labelled.id, recipe=recipe)
        console.print(f"job {started.id}: {url}/v1/jobs/{started.id}")
        job = followed(lambda: Client(url, timeout=PATIENCE, retries=0), started.id, console)
        if job["state"] != "succeeded":
            console.print_json(data=job["error"] or {"state": job["state"]})
            return 1
        report = make_report(client, job)
    path = report_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    _tell(report, path, job, url, console)
    return 0


def report_path(home: Path) -> Path:
    """Where :func:`run` writes its report."""
    return home / "demo" / "report.json"


def ensure_stack(home: Path, console: Console) -> str:
    """The gateway's URL of this home's stack, started if it was not up."""
    stack = Stack(home, port=None, tied=False)
    started = time.monotonic()
    try:
        with console.status("starting Postgres, Redis and the services"):
            stack.start()
        console.print(f"stack up after {time.monotonic() - started:.1f} s")
    except AlreadyRunning:
        pass  # which is what is wanted
    return stack.gateway_url


def make_report(client: Client, job: Json) -> Json:
    """The report of a finished job, with one pair of the test set judged by its latest version."""
    iterations = client.jobs.get(job["id"]).iterations()
    rows = [row for one in iterations if (row := row_of(one.model_dump(mode="json")))]
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
        "judge_example": {"request": asked, "answer": judged.model_dump(mode="json")},
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
