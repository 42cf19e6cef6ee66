"""A tiny job in the database, and handlers that do almost nothing, to drive the kernel alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught.artifacts import publish_rows
from selftaught.contracts import Recipe
from selftaught.database import transaction
from selftaught.database.tables import (
    Artifact,
    Chunk,
    Dataset,
    Event,
    Iteration,
    Job,
    ModelVersion,
    Stage,
)
from selftaught.ids import new_id
from selftaught.registry import merge
from selftaught.work import pipeline, planning
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler, run_one

ROWS = 20


def make_job(iterations: int = 1, labelled: int = 0, **settings: Any) -> str:
    """A job over 20 instructions: 4 held out, 8 an iteration, chunks of 2; and labelled rows."""
    raw = {
        "name": "kernel-test",
        "iterations": iterations,
        "chunk_size": 2,
        "pair": {"instructions": 8},
        "validate": {"instructions": 4},
    }
    recipe = Recipe.model_validate(merge(raw, settings))
    dataset = make_dataset(ROWS)
    labelled_dataset = make_dataset(labelled, "labelled") if labelled else None
    with transaction() as session:
        job = Job(
            id=new_id("job"),
            state="pending",
            model="kernel-test",
            dataset_id=dataset,
            labelled_dataset_id=labelled_dataset,
            recipe=recipe.model_dump(mode="json", by_alias=True),
        )
        session.add(job)
        pipeline.start_job(session, job)
        return job.id


def make_dataset(rows: int, kind: str = "instructions") -> str:
    dataset = new_id("ds")
    made = ({"id": str(i), "instruction": f"say {i}"} for i in range(rows))
    published = publish_rows("dataset", f"datasets/{dataset}.jsonl", made)
    with transaction() as session:
        artifact = Artifact(id=new_id("art"), **published.__dict__)
        session.add(artifact)
        session.flush()
        session.add(Dataset(id=dataset, name="d", kind=kind, artifact_id=artifact.id))
    return dataset


def _publish_version(session: Session, lease: Lease, _result: Result) -> None:
    iteration = session.get_one(Iteration, lease.iteration_id)
    version = ModelVersion(
        id=new_id("ver"),
        model=lease.job_id,
        number=lease.iteration,
        path="nowhere",
        sha256="0",
        lineage={},
    )
    session.add(version)
    session.flush()
    iteration.version_id = version.id


def _run(lease: Lease) -> Result:
    rows = {"select": ROWS, "label": 2, "choose": 10, "pair": 2, "judge": 4, "curate": 2}.get(
        lease.kind, 0
    )
    counts = {f"{lease.kind}_rows": rows}
    if not rows:
        return Result(counts=counts)
    published = publish_rows(lease.kind, lease.path(lease.kind), ({"n": i} for i in range(rows)))
    return Result(counts=counts, artifact=published)


HANDLERS = {
    kind: Handler(_run, _publish_version if kind in ("register", "train") else None)
    for kind in planning.QUEUES
}


def with_run(kind: str, run: Callable[[Lease], Result]) -> dict[str, Handler]:
    """HANDLERS with one `run` replaced."""
    return {**HANDLERS, kind: Handler(run, HANDLERS[kind].apply)}


def ready(job_id: str) -> list[str]:
    with transaction() as session:
        found = select(Chunk.id).where(Chunk.job_id == job_id, Chunk.state == "ready")
        return list(session.scalars(found.order_by(Chunk.id)))


def drain(job_id: str, handlers: dict[str, Handler] = HANDLERS, until: str | None = None) -> None:
    """Run ready chunks until none is left, or until one of kind `until` is ready."""
    while chunks := ready(job_id):
        if until is not None and chunk(chunks[0]).kind == until:
            return
        run_one(chunks[0], "test", handlers)


def job(job_id: str) -> Job:
    with transaction() as session:
        return session.get_one(Job, job_id)


def chunk(chunk_id: str) -> Chunk:
    with transaction() as session:
        return session.get_one(Chunk, chunk_id)


def chunk_of(job_id: str, kind: str) -> str:
    """The first chunk of this kind."""
    with transaction() as session:
        found = select(Chunk.id).where(Chunk.job_id == job_id, Chunk.kind == kind)
        return session.scalars(found.order_by(Chunk.id)).first() or ""


def inputs(job_id: str, kind: str) -> dict[int, list[dict[str, Any]]]:
    """Iteration -> inputs of the chunks of its stage of this kind, in order."""
    found: dict[int, list[dict[str, Any]]] = {}
    with transaction() as session:
        rows = session.execute(
            select(Iteration.number, Chunk.input)
            .join(Stage, Stage.iteration_id == Iteration.id)
            .join(Chunk, Chunk.stage_id == Stage.id)
            .where(Stage.kind == kind, Iteration.job_id == job_id)
            .order_by(Iteration.number, Chunk.position)
        )
        for number, entry in rows:
            found.setdefault(number, []).append(entry)
    return found


def stages(job_id: str) -> dict[int, list[Stage]]:
    """Iteration -> its stages, in order."""
    found: dict[int, list[Stage]] = {}
    with transaction() as session:
        rows = session.execute(
            select(Iteration.number, Stage)
            .join(Stage, Stage.iteration_id == Iteration.id)
            .where(Iteration.job_id == job_id)
            .order_by(Iteration.number, Stage.position)
        )
        for number, stage in rows:
            found.setdefault(number, []).append(stage)
    return found


def events(job_id: str) -> list[Event]:
    with transaction() as session:
        found = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
        return list(session.scalars(found))
