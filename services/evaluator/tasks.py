"""The evaluator's work: score versions on held-out and labelled pairs, then decide promotion.

    celery -A services.evaluator.tasks worker -Q evaluator --pool solo

Half of the held-out pairs chooses checkpoints (the trainer's half), the other half is scored here,
so that no version is promoted on the pairs that chose it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import aliases, jsonl
from selftaught.artifacts import resolve
from selftaught.database import transaction
from selftaught.database.tables import (
    Alias,
    Chunk,
    Evaluation,
    Iteration,
    Job,
    ModelVersion,
    Stage,
)
from selftaught.ids import new_id
from selftaught.judging import load_judge_template
from selftaught.judging.scoring import merge_counts, score_pairs, summarise
from selftaught.versions import open_version
from selftaught.work.events import emit
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler, make_app
from services.evaluator.gate import decide

Summaries = dict[str, dict[str, Any]]  # set -> summary


def validate(lease: Lease) -> Result:
    """Judge a range of pairs in both orders, greedily, with the version's own judge template."""
    with transaction() as session:
        version = session.get_one(ModelVersion, lease.input["version"])
    pairs = list(_pairs(lease.input))
    scored = score_pairs(
        open_version(version),
        load_judge_template(version.lineage["template"]["name"]),
        pairs,
        lease.recipe.validate_.max_tokens,
    )
    return Result(
        counts={"tokens": scored["tokens"], "scored_pairs": len(pairs)},
        metrics={"set": lease.input["set"], "version": version.id, "scored": scored},
    )


def _pairs(chunk_input: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rows = (row for path in chunk_input["paths"] for row in jsonl.read(resolve(path)))
    if chunk_input["set"] == "heldout":
        yield from islice(rows, 1, None, 2)
    else:
        yield from islice(rows, chunk_input["offset"], chunk_input["offset"] + chunk_input["limit"])


def gate(lease: Lease) -> Result:
    """Sum up the validate stage's chunks."""
    with transaction() as session:
        parts = session.scalars(
            select(Chunk.metrics)
            .join(Stage, Stage.id == Chunk.stage_id)
            .where(Stage.iteration_id == lease.iteration_id, Stage.kind == "validate")
            .order_by(Chunk.position)
        ).all()
    scored: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for part in parts:
        scored.setdefault((part["version"], part["set"]), []).append(part["scored"])
    summaries: dict[str, Summaries] = {}
    for (version, name), counts in scored.items():
        summaries.setdefault(version, {})[name] = summarise(merge_counts(counts))
    return Result(extra={"summaries": summaries})


def apply_gate(session: Session, lease: Lease, result: Result) -> dict[str, Any]:
    """Record the evaluations, decide with `latest` locked, and move it if the gate allows."""
    job = session.get_one(Job, lease.job_id)
    candidate_id = str(session.get_one(Iteration, lease.iteration_id).version_id)
    candidate = session.get_one(ModelVersion, candidate_id)
    for version_id, sets in result.extra["summaries"].items():
        for name, metrics in sets.items():
            _record(session, version_id, job.id, name, metrics)
    session.flush()
    mine = _summaries(session, candidate_id, job.id)
    latest = session.get(Alias, (job.model, "latest"), with_for_update=True)
    found: dict[str, Any] = {**mine, "promoted": False}
    if latest is not None and latest.version_id == candidate_id:
        return {**found, "promoted": True, "reasons": ["already latest"]}
    theirs = None if latest is None else _summaries(session, latest.version_id, job.id)
    if theirs is not None and "heldout" not in theirs:
        reasons = ["latest was moved meanwhile to a version this job has not scored"]
    else:
        decision = decide(mine, theirs, lease.recipe.gate)
        found["promoted"], reasons = decision.promote, decision.reasons
    if found["promoted"]:
        aliases.move(session, job.model, "latest", candidate, reason=f"gate of {job.id}")
    told = {"version": candidate.ref, "promoted": found["promoted"], "reasons": reasons}
    emit(session, job.id, "gate.decided", {"iteration": lease.iteration, **told})
    return {**found, "reasons": reasons}


def _record(
    session: Session, version_id: str, job_id: str, name: str, metrics: dict[str, Any]
) -> None:
    session.add(
        Evaluation(id=new_id("ev"), version_id=version_id, job_id=job_id, set=name, metrics=metrics)
    )


def _summaries(session: Session, version_id: str, job_id: str) -> Summaries:
    found = session.execute(
        select(Evaluation.set, Evaluation.metrics).where(
            Evaluation.version_id == version_id, Evaluation.job_id == job_id
        )
    )
    return dict(found.tuples().all())


app = make_app("evaluator", {"validate": Handler(validate), "gate": Handler(gate, apply_gate)})
