"""The loop against its controls: is it the method that helps, or merely more training?

    selftaught controls instructions.jsonl --labelled test.jsonl --recipe quickstart --seeds 0,1,2

Every run is a job of its own. A control differs from the loop in one thing and trains on as many
tokens (where the recipe trains by `train.steps`; the table has the tokens of each). A control may
fail: labels that leave nothing to train on are a result, too.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selftaught.client import Client, Job
from selftaught.contracts import Recipe
from selftaught.hashing import canonical_sha256
from selftaught.iterations import row_of

Json = dict[str, Any]
Results = dict[str, list[Json]]  # "arm/loop seed" -> its scored iterations, the seed first
Failures = dict[str, str]  # "arm/loop seed" -> why its job did not succeed


def arms(recipe: Recipe) -> dict[str, Json]:
    """Overrides of a recipe by arm: the loop as it is, then its controls.

    one round: the instructions and the training of all iterations at once, judged by the seed.
    no labels: no verdict is rejected. random labels, own majority: what a verdict is compared with.
    These three look at all N judgments, so nothing is stopped early. Without a wrong judgment there
    is no preference, so 'no labels' is left out for DPO.
    """
    many = recipe.iterations
    judge: Json = {"quota": recipe.judge.quota and many * recipe.judge.quota}
    train: Json = {"steps": recipe.train.steps and many * recipe.train.steps}
    pair: Json = {"instructions": many * recipe.pair.instructions}
    if not recipe.pair.fresh:  # every iteration trains on the same pairs
        pair = judge = {}
        train["epochs"] = recipe.train.epochs and many * recipe.train.epochs
    found: dict[str, Json] = {
        "loop": {},
        "one round": {"iterations": 1, "pair": pair, "judge": judge, "train": train},
    }
    every = {} if recipe.judge.need == "all" else {"judge": {"need": "all", "quota": None}}
    for name, label in (
        ("no labels", "none"),
        ("random labels", "random"),
        ("own majority", "majority"),
    ):
        if label != "none" or not recipe.wants_preferences:
            found[name] = {**every, "curate": {"label": label}}
    return found


def run(
    client: Client,
    home: Path,
    recipe: Recipe,
    instructions: Path,
    labelled: Path | None,
    seeds: list[int],
    at_once: int,
    say: Callable[[str], None],
) -> tuple[Results, Failures]:
    """All arms of a recipe with all loop seeds, on the stack of this home.

    Ids are noted in `home`/controls, by recipe and content of the files: the same call after an
    interruption goes on, and one with more seeds runs only those.
    """
    files = [_sha256(path) for path in (instructions, labelled) if path is not None]
    raw = recipe.model_dump(mode="json", by_alias=True)
    record = home / "controls" / f"{canonical_sha256([raw, files])[:16]}.json"
    record.parent.mkdir(exist_ok=True)
    dataset = known(record, "instructions", lambda: client.datasets.upload(instructions).id)
    data: Json = {"dataset": dataset}
    if labelled is not None:
        data["labelled_dataset"] = known(
            record, "labelled", lambda: client.datasets.upload(labelled, "labelled").id
        )
    jobs = {
        f"{arm}/{seed}": {
            **data,
            "recipe": raw,
            "overrides": {**changed, "seed": seed},
            "model": f"{slug(f'{arm}-{seed}')}-{recipe.name}"[:64],
        }
        for arm, changed in arms(recipe).items()
        for seed in seeds
    }

    def tell(name: str, row: Json) -> None:
        say(f"{name}  iteration {row['iteration']}  strict {row['strict_accuracy']:.4f}")

    return run_jobs(client, record, jobs, at_once, tell)


def run_jobs(
    client: Client,
    record: Path,
    jobs: dict[str, Json],
    at_once: int,
    on_iteration: Callable[[str, Json], None],
    on_job: Callable[[Results], None] = lambda results: None,
) -> tuple[Results, Failures]:
    """Run every job (name -> body of its POST) to its end, `at_once` at a time.

    Returns the rows of those that succeeded, and why the others did not. `on_iteration` is handed
    each row once, `on_job` all finished runs whenever there are more of them. Of an earlier call's
    jobs, those that were cancelled or failed through the system's fault are started anew.
    """
    again = [
        n for n, id_ in _read(record).items() if n in jobs and _worth_again(client.jobs.get(id_))
    ]
    _write(record, {name: id_ for name, id_ in _read(record).items() if name not in again})
    told: dict[str, int] = {}
    finished: Results = {}
    failures: Failures = {}
    while len(finished) + len(failures) < len(jobs):
        ids = _read(record)
        running, more = 0, False
        for name in [n for n in jobs if n in ids and n not in finished and n not in failures]:
            job = client.jobs.get(ids[name])
            rows = scored_rows([one.model_dump(mode="json") for one in job.iterations()])
            for row in rows[told.get(name, 0) :]:
                on_iteration(name, row)
            told[name] = len(rows)
            if job.state == "succeeded":
                finished[name], more = rows, True
            elif job.ended:
                failures[name] = (job.error and job.error.detail) or str(job.state)
            else:
                running += 1
        for name in [name for name in jobs if name not in ids][: max(0, at_once - running)]:
            known(record, name, lambda name=name: client.jobs.create(**jobs[name]).id)  # type: ignore[misc]
        finished = {name: finished[name] for name in jobs if name in finished}
        if more:
            on_job(finished)
        time.sleep(2 if len(finished) + len(failures) < len(jobs) else 0)
    return finished, failures


def _worth_again(job: Job) -> bool:
    """Whether an ended job may end better the next time: nobody's data or settings are at fault."""
    fault = job.error and job.error.fault
    return job.state == "cancelled" or (job.state == "failed" and fault != "user")


def known(record: Path, name: str, make: Callable[[], str]) -> str:
    """The id noted under a name in a JSON file; made and noted if it is not there."""
    ids = _read(record)
    if name not in ids:
        ids[name] = make()
        _write(record, ids)
    return ids[name]


def scored_rows(iterations: list[Json]) -> list[Json]:
    """One row per scored iteration, as in the demo's report, and the tokens it trained on."""
    return [
        {**row, "train_tokens": iteration["counts"].get("train_tokens", 0)}
        for iteration in iterations
        if (row := row_of(iteration))
    ]


def means(results: Results) -> list[str]:
    """A Markdown table: strict accuracy by arm and iteration, mean over the loop seeds there are.

    'error falls by': of the last version against the seed, as a share of the seed's error.
    """
    by_arm: dict[str, list[list[Json]]] = {}
    for name, rows in results.items():
        by_arm.setdefault(name.rpartition("/")[0], []).append(rows)
    columns = max((len(rows) for rows in results.values()), default=1)
    titles = ["seed", *map(str, range(1, columns)), "error falls by", "tokens trained in all"]
    lines = [f"| arm | loop seeds | {' | '.join(titles)} |", "|---" * (columns + 4) + "|"]
    for arm, runs in by_arm.items():
        scores = [
            statistics.mean(row["strict_accuracy"] for row in rows)
            for rows in zip(*runs, strict=True)
        ]
        fall = f"{1 - (1 - scores[-1]) / (1 - scores[0]):.1%}" if scores[0] < 1 else "-"
        tokens = statistics.mean(sum(row["train_tokens"] for row in rows) for rows in runs)
        cells = [f"{score:.4f}" for score in scores] + [""] * (columns - len(scores))
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} | **{fall}** | {tokens:,.0f} |")
    return lines


def slug(name: str) -> str:
    """A name for the registry."""
    return re.sub("[^a-z0-9]+", "-", name)


def _read(record: Path) -> dict[str, str]:
    return json.loads(record.read_text()) if record.exists() else {}


def _write(record: Path, ids: dict[str, str]) -> None:
    """Whole, or not at all."""
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(ids, indent=1))
    fresh.replace(record)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
