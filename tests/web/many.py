"""A registry as it is after a year: many versions in branches, as rows without weights."""

from __future__ import annotations

import math
import random
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from selftaught import aliases, tenancy
from selftaught.contracts import State
from selftaught.database.tables import Evaluation, Job, ModelVersion, Promotion
from selftaught.ids import new_id
from selftaught.registry import resolve_recipe

ITERATIONS = 5


def seed(url: str, model: str, count: int) -> None:
    """`count` versions of a model: jobs of five iterations, each beginning at the best version then
    or, now and then, at an older one. The database at `url` has them when this returns."""
    draw = random.Random(7)
    engine = create_engine(url)
    confine = text("SELECT set_config('selftaught.project', :project, true)")
    with Session(engine) as session, session.begin():
        session.execute(confine, {"project": tenancy.DEFAULT})
        job = _job(session, model)
        best = _version(session, model, 0, job, None, 0.36)
        made = [best]
        accuracy = {best.id: 0.36}
        aliases.move(session, model, aliases.LATEST, best, f"gate of {job}")
        while len(made) < count:
            job = _job(session, model)
            parent = best if draw.random() < 0.6 else draw.choice(made)
            for iteration in range(1, 1 + min(ITERATIONS, count - len(made))):
                gain = draw.gauss(0.03, 0.03) * (0.92 - accuracy[parent.id])
                value = min(0.95, max(0.2, accuracy[parent.id] + 2 * gain))
                child = _version(session, model, len(made), job, parent, value, iteration)
                accuracy[child.id] = value
                made.append(child)
                passed = value >= accuracy[best.id]
                session.add(_decision(child, best, job, value, accuracy[best.id], passed))
                if passed:
                    best = child
                    aliases.move(session, model, aliases.LATEST, best, f"gate of {job}")
                parent = child if passed or draw.random() < 0.5 else parent
        aliases.move(
            session, model, "staging", made[-2], "to be tried by the search team", by="ada"
        )
        aliases.move(session, model, "audited-2026", made[count // 2], "audit", by="grace")
    engine.dispose()


def _job(session: Session, model: str) -> str:
    recipe = resolve_recipe("quickstart", {}).model_dump(mode="json", by_alias=True)
    job = Job(id=new_id("job"), kind="loop", state=State.SUCCEEDED, model=model, recipe=recipe)
    session.add(job)
    session.flush()
    return job.id


def _version(
    session: Session,
    model: str,
    number: int,
    job: str,
    parent: ModelVersion | None,
    accuracy: float,
    iteration: int = 0,
) -> ModelVersion:
    lineage: dict[str, Any] = {
        "seed": 0,
        "counts": {},
        "recipe": {"name": "smollm2", "base_model": "smollm2"},
        "dataset": {"id": "ds_019ac5a0b2c07e1f4a6b8c9d", "sha256": "7a1f" * 16},
        "template": {"name": "mt-bench", "sha256": "6a0b" * 16},
    }
    version = ModelVersion(
        id=new_id("ver"),
        model=model,
        number=number,
        job_id=job,
        iteration_number=iteration,
        parent_id=parent.id if parent is not None else None,
        path=f"/nowhere/{number}",
        sha256="0d9c" * 16,
        lineage=lineage,
    )
    session.add(version)
    session.flush()
    for set_, n, value in (("heldout", 400, accuracy), ("labelled", 250, 0.9 * accuracy)):
        half = 1.96 * math.sqrt(value * (1 - value) / n)
        metrics = {
            "n": n,
            "strict_accuracy": value,
            "mean_accuracy": value + 0.05,
            "ci95": [value - half, value + half],
            "position_bias": 0.3 / (number + 2),
            "ties": 0.1,
            "parse_failures": 0.0,
        }
        session.add(
            Evaluation(
                id=new_id("ev"), version_id=version.id, job_id=job, set=set_, metrics=metrics
            )
        )
    return version


def _decision(
    version: ModelVersion,
    best: ModelVersion,
    job: str,
    got: float,
    needed: float,
    passed: bool,
) -> Promotion:
    said = f"strict accuracy {got:.4f}, needed {needed:.4f}: {'passed' if passed else 'failed'}"
    finding = {
        "rule": "margin",
        "passed": passed,
        "set": "heldout",
        "got": got,
        "needed": needed,
        "detail": f"heldout: {said}",
    }
    return Promotion(
        id=new_id("pro"),
        version_id=version.id,
        alias=aliases.LATEST,
        incumbent_id=best.id,
        promoted=passed,
        forced=False,
        findings=[finding],
        reason=f"gate of {job}",
        job_id=job,
    )
