"""A job's way from start to end: its rows, opened and closed one after the other.

`planning` says what comes next; here it is written. Every function runs inside the caller's
transaction, with the job's row locked, and only reads and writes rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    cast,
    delete,
    exists,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from selftaught import logs, telemetry
from selftaught.contracts import TERMINAL, State
from selftaught.database.tables import Chunk, EngineDemand, Iteration, Job, Outbox, Stage
from selftaught.ids import new_id
from selftaught.work.events import emit
from selftaught.work.planning import QUEUES, Inputs, last_iteration, nothing_left, plan, stages

ANNOUNCED = 32  # chunks of a stage that are announced before any is done


NOW = func.clock_timestamp()
"""Postgres's clock: hosts may disagree about theirs."""


def start_job(session: Session, job: Job, inputs: Inputs | None = None) -> None:
    """Plan iteration 0 of a job whose row was just added; call in the same transaction.

    `inputs`: of the first stage's chunks, where they do not follow from rows.
    """
    job.request_id, job.traceparent = logs.current("request_id"), telemetry.traceparent()
    session.flush()
    emit(session, job.id, "job.created", {"model": job.model, "recipe": job.recipe["name"]})
    job.state = State.RUNNING
    job.started_at = NOW
    _start_iteration(session, job, 0, inputs)


def lock_job(session: Session, job_id: str) -> Job:
    """The job's row, locked. Every transaction takes this lock first, so none deadlock."""
    return session.execute(
        select(Job)
        .where(Job.id == job_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one()


def stage_chunk_done(session: Session, job: Job, stage_id: str) -> None:
    """Count a finished chunk; the last one closes the stage and plans what follows (fan-in)."""
    stage = session.get_one(Stage, stage_id, populate_existing=True)
    stage.chunks_done += 1
    if stage.chunks_done < stage.chunks:
        following = ANNOUNCED + stage.chunks_done - 1
        if following < stage.chunks:
            _announce(session, stage, range(following, following + 1))
        if stage.chunks > 1:
            progress = {"stage": stage.kind, "done": stage.chunks_done, "of": stage.chunks}
            emit(session, job.id, "stage.progress", progress)
        return
    stage.counts = chunk_counts(session, [stage.id]).get(stage.id, {})
    if stage.chunks == 1:
        stage.metrics = session.scalars(
            select(Chunk.metrics).where(Chunk.stage_id == stage.id)
        ).one()
    stage.state = State.SUCCEEDED
    stage.finished_at = NOW
    iteration = session.get_one(Iteration, stage.iteration_id)
    emit(
        session,
        job.id,
        "stage.succeeded",
        {"iteration": iteration.number, "stage": stage.kind, "counts": stage.counts},
    )
    kinds = stages(job, iteration.number)
    if stage.position + 1 < len(kinds):
        _start_stage(session, job, iteration, stage.position + 1)
    else:
        _finish_iteration(session, job, iteration)


def fail_job(session: Session, job: Job, error: dict[str, Any]) -> None:
    """End a job as failed, with a Problem body as the reason."""
    if job.state in TERMINAL:
        return
    job.state = State.FAILED
    job.error = error
    job.finished_at = NOW
    _close_open_rows(session, job, State.FAILED)
    _ask_nothing(session, job)
    emit(session, job.id, "job.failed", error)


def settle(session: Session, job: Job) -> None:
    """End a cancelling job, and stop a pausing one, once none of its chunks is running."""
    if job.state == State.CANCELLING:
        _end_chunks(session, job, State.READY)
    elif job.state != State.PAUSING:
        return
    session.flush()
    running = session.scalar(
        select(func.count()).where(Chunk.job_id == job.id, Chunk.state == State.RUNNING)
    )
    if running:
        return
    _ask_nothing(session, job)
    if job.state == State.PAUSING:
        job.state = State.PAUSED
        job.paused_at = NOW
        emit(session, job.id, "job.paused")
        return
    job.state = State.CANCELLED
    job.finished_at = NOW
    _close_open_rows(session, job, State.CANCELLED)
    emit(session, job.id, "job.cancelled")


def _ask_nothing(session: Session, job: Job) -> None:
    """No engine is started or kept for a job that stands still (see selftaught.engines)."""
    session.execute(delete(EngineDemand).where(EngineDemand.job_id == job.id))


def announce_again(session: Session, job: Job) -> None:
    """Ring the ready chunks of a job that stood still: what was sent meanwhile found it so.

    Of each stage as many as were announced by then (:func:`_announce`).
    """
    waiting = (
        select(Chunk.id, Chunk.queue)
        .join(Stage, Stage.id == Chunk.stage_id)
        .where(
            Chunk.job_id == job.id,
            Chunk.state == State.READY,
            Chunk.position < Stage.chunks_done + ANNOUNCED,
            ~exists().where(Outbox.chunk_id == Chunk.id),
        )
        .order_by(Chunk.position)
    )
    session.execute(insert(Outbox).from_select(["chunk_id", "queue"], waiting))


def ring(session: Session, chunk: Chunk, delay: float = 0.0) -> None:
    """Queue the message that announces a ready chunk; the relay sends it in `delay` seconds."""
    at = func.clock_timestamp() + dt.timedelta(seconds=delay)
    session.add(Outbox(chunk_id=chunk.id, queue=chunk.queue, created_at=at))


def add_counts(parts: list[dict[str, Any]]) -> dict[str, int]:
    """Sum of integer counts, key by key."""
    total: dict[str, int] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0) + int(value)
    return dict(sorted(total.items()))


def chunk_counts(session: Session, stage_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Stage -> sum of its chunks' counts so far, key by key; added up by Postgres."""
    entry = func.jsonb_each_text(Chunk.counts).table_valued("key", "value")
    query = (
        select(Chunk.stage_id, entry.c.key, func.sum(cast(entry.c.value, BigInteger)))
        .join(entry, true())
        .where(Chunk.stage_id.in_(stage_ids))
        .group_by(Chunk.stage_id, entry.c.key)
        .order_by(entry.c.key)
    )
    found: dict[str, dict[str, int]] = {}
    for stage_id, key, value in session.execute(query):
        found.setdefault(stage_id, {})[key] = int(value)
    return found


def _start_iteration(session: Session, job: Job, number: int, inputs: Inputs | None = None) -> None:
    iteration = Iteration(
        id=new_id("it"), job_id=job.id, number=number, state=State.RUNNING, started_at=NOW
    )
    session.add(iteration)
    session.flush()
    emit(session, job.id, "iteration.started", {"iteration": number, "id": iteration.id})
    _start_stage(session, job, iteration, 0, inputs)


def _start_stage(
    session: Session,
    job: Job,
    iteration: Iteration,
    position: int,
    inputs: Inputs | None = None,
) -> None:
    kind = stages(job, iteration.number)[position]
    if inputs is None:
        inputs = plan(session, job, iteration, kind)
    stage = Stage(
        id=new_id("st"),
        job_id=job.id,
        iteration_id=iteration.id,
        kind=kind,
        position=position,
        state=State.RUNNING if inputs else State.FAILED,
        chunks=len(inputs),
    )
    session.add(stage)
    session.flush()
    emit(
        session,
        job.id,
        "stage.started",
        {"iteration": iteration.number, "stage": kind, "chunks": len(inputs)},
    )
    if not inputs:
        fail_job(session, job, nothing_left(session, job, iteration, kind))
        return
    chunks = [
        {
            "id": _chunk_id(stage, index),
            "job_id": job.id,
            "stage_id": stage.id,
            "position": index,
            "kind": kind,
            "queue": QUEUES[kind],
            "state": State.READY,
            "input": chunk_input,
        }
        for index, chunk_input in enumerate(inputs)
    ]
    session.execute(insert(Chunk), chunks)
    _announce(session, stage, range(min(ANNOUNCED, len(chunks))))


def _announce(session: Session, stage: Stage, positions: range) -> None:
    """Ring chunks of a stage for the first time: some at its start, then one for each that is done.

    So a long stage does not fill the queue: what another job needs, and a chunk that is tried
    again, waits behind a few of its chunks, not behind all.
    """
    for position in positions:
        session.add(Outbox(chunk_id=_chunk_id(stage, position), queue=QUEUES[stage.kind]))


def _chunk_id(stage: Stage, position: int) -> str:
    return f"{stage.id}.{position}"


def _finish_iteration(session: Session, job: Job, iteration: Iteration) -> None:
    iteration.state = State.SUCCEEDED
    iteration.finished_at = NOW
    emit(session, job.id, "iteration.succeeded", {"iteration": iteration.number})
    if iteration.number < last_iteration(job):
        _start_iteration(session, job, iteration.number + 1)
        return
    job.state = State.SUCCEEDED
    job.finished_at = NOW
    emit(session, job.id, "job.succeeded")


def lock_chunks(session: Session, *which: ColumnElement[bool]) -> list[str]:
    """Ids of chunks, locked in the relay's order, which takes no job's lock: so none deadlock."""
    return list(
        session.scalars(select(Chunk.id).where(*which).order_by(Chunk.id).with_for_update())
    )


def _end_chunks(session: Session, job: Job, *states: State) -> None:
    """Cancel the job's chunks in these states; who holds one finds its token gone."""
    which = (Chunk.job_id == job.id, Chunk.state.in_(states))
    lock_chunks(session, *which)
    session.execute(
        update(Chunk)
        .where(*which)
        .values(
            state=State.CANCELLED,
            lock_token=None,
            lock_owner=None,
            lock_expires_at=None,
            finished_at=NOW,
        )
        .execution_options(synchronize_session=False)
    )


def _close_open_rows(session: Session, job: Job, state: State) -> None:
    """Give every open row of an ended job its final state."""
    session.flush()
    _end_chunks(session, job, State.READY, State.RUNNING)
    for table in (Stage, Iteration):
        session.execute(
            update(table)
            .where(table.job_id == job.id, table.state == State.RUNNING)
            .values(state=state, finished_at=NOW)
            .execution_options(synchronize_session=False)
        )
