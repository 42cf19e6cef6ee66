"""Leases: one holder per chunk, and only the holder's result counts.

claim → (work outside any transaction, heartbeat in a thread) → finish | fail. A holder that froze
or died loses its lease to the reaper; when it comes back its token no longer matches and its
result is discarded. All times are Postgres's clock, so hosts may disagree about theirs.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import CursorResult, func, select, text, update
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from selftaught import totals, usage
from selftaught.artifacts import Published, discard
from selftaught.contracts import Problem, Recipe, State
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Iteration, Job, Stage
from selftaught.ids import new_id
from selftaught.settings import get_settings
from selftaught.work import pipeline
from selftaught.work.events import emit
from selftaught.work.states import GOING

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Somebody else holds the chunk now, or the job has ended; drop everything."""


class JobFailure(Exception):
    """The job cannot go on; ends it with a typed reason and no further attempt."""

    def __init__(self, code: str, title: str, detail: str, fault: str = "user") -> None:
        super().__init__(f"{code}: {detail}")
        self.problem = Problem.model_validate(
            {"code": code, "title": title, "detail": detail, "fault": fault}
        )


@dataclass(frozen=True)
class Result:
    """What a handler made: counts are summed over a stage's chunks."""

    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifact: Published | None = None
    gpu_seconds: float = 0.0  # of devices that it held
    side_artifacts: tuple[Published, ...] = ()  # kept, but not the next stage's input
    extra: dict[str, Any] = field(default_factory=dict)  # for the handler's own apply


@dataclass
class Lease:
    """A claimed chunk, with all its handler needs to know."""

    chunk_id: str
    token: str
    project: str
    job_id: str
    iteration_id: str
    iteration: int
    kind: str
    attempt: int
    input: dict[str, Any]
    settings: dict[str, Any]  # of the job: a recipe, or an evaluation's own
    request_id: str | None = None  # that made the job
    lost: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.model_validate(self.settings)

    @property
    def ids(self) -> dict[str, str | int | None]:
        """For logs and traces (logs.FIELDS)."""
        return {
            "request_id": self.request_id,
            "job_id": self.job_id,
            "chunk_id": self.chunk_id,
            "stage": self.kind,
            "iteration": self.iteration,
            "attempt": self.attempt,
        }

    def check(self) -> None:
        """Step boundary: raises LeaseLost once the lease or the job is gone."""
        if self.lost.is_set():
            raise LeaseLost(self.chunk_id)

    def confirm(self) -> None:
        """Ask the database whether the lease is ours, before doing what cannot be undone.

        A process that was frozen does not know; raises LeaseLost.
        """
        if not renew(self):
            self.lost.set()
        self.check()

    def path(self, kind: str) -> str:
        """Where this holder, and no other, writes its artifact."""
        return f"jobs/{self.job_id}/{self.iteration}/{kind}/{self.chunk_id}.{self.token}.jsonl"

    def say(self, type_: str, data: dict[str, Any]) -> None:
        """Tell of progress now, in a transaction of its own; only the lease's holder is heard.

        A database that is away for a moment costs the event, never the work it tells of.
        """
        try:
            with transaction() as session:
                _lock(session, self.job_id)
                ours = (Chunk.id == self.chunk_id, Chunk.lock_token == self.token)
                if session.scalar(select(Chunk.id).where(*ours)) is None:
                    self.lost.set()
                    return
                emit(session, self.job_id, type_, {"iteration": self.iteration, **data})
        except DBAPIError as error:
            log.warning("event %s of %s is lost: %s", type_, self.chunk_id, error)


def claim(chunk_id: str, owner: str) -> Lease | None:
    """Take the chunk if it is ready and its job is running; None means there is nothing to do."""
    with transaction() as session:
        job_id = session.scalar(select(Chunk.job_id).where(Chunk.id == chunk_id))
        if job_id is None:
            return None
        job = _lock(session, job_id)
        if job is None or job.state != State.RUNNING:
            return None
        chunk = session.get_one(Chunk, chunk_id, populate_existing=True)
        if chunk.state != State.READY:
            return None
        stage = session.get_one(Stage, chunk.stage_id)
        iteration = session.get_one(Iteration, stage.iteration_id)
        chunk.state = State.RUNNING
        chunk.attempt += 1
        chunk.lock_token = secrets.token_hex(8)
        chunk.lock_owner = owner
        chunk.started_at = pipeline.NOW
        chunk.lock_expires_at = pipeline.NOW + _lease_time()
        stage.started_at = func.coalesce(Stage.started_at, pipeline.NOW)
        return Lease(
            chunk_id=chunk.id,
            token=chunk.lock_token,
            project=job.project_id,
            job_id=job.id,
            iteration_id=iteration.id,
            iteration=iteration.number,
            kind=chunk.kind,
            attempt=chunk.attempt,
            input=chunk.input,
            settings=job.recipe,
            request_id=job.request_id,
        )


class Heartbeat:
    """Renews a lease from a thread while the block runs; sets `lease.lost` when it is gone."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        settings = get_settings()
        renewed = time.monotonic()
        while not self._stop.wait(settings.heartbeat_seconds):
            try:
                alive = renew(self._lease)
            except SQLAlchemyError as error:  # Postgres restarts: the lease outlives a short one
                log.warning("heartbeat of %s failed: %s", self._lease.chunk_id, error)
                alive = time.monotonic() - renewed < settings.lease_seconds
            else:
                renewed = time.monotonic()
            if not alive:
                self._lease.lost.set()
                return


def renew(lease: Lease) -> bool:
    """Extend the lease; False if it is lost or the job no longer runs."""
    with transaction() as session:
        result = session.execute(
            text(
                "UPDATE chunks SET lock_expires_at = clock_timestamp() + :s "
                "FROM jobs WHERE chunks.id = :id AND chunks.lock_token = :token "
                "AND jobs.id = chunks.job_id AND jobs.state = 'running'"
            ),
            {"s": _lease_time(), "id": lease.chunk_id, "token": lease.token},
        )
        return _hit(result)


Apply = Callable[[Session, Lease, Result], dict[str, Any] | None]
"""A handler's own rows, in the publishing transaction; returns metrics known only inside it."""


def finish(lease: Lease, result: Result, apply: Apply | None = None) -> bool:
    """Publish the holder's result and plan what follows, in one transaction.

    False: the lease was lost or the job ended, nothing was changed, and the artifact's file is
    removed. Raises OperationalError while Postgres is away; calling again is safe.
    """
    applied = False
    with transaction() as session:
        job = _lock(session, lease.job_id)
        if job is not None and job.state in GOING and _release(session, lease):
            applied = True
            chunk = session.get_one(Chunk, lease.chunk_id, populate_existing=True)
            chunk.counts, chunk.metrics = result.counts, result.metrics
            if result.artifact is not None:
                chunk.artifact_id = _add_artifact(session, result.artifact)
            for side in result.side_artifacts:
                _add_artifact(session, side)
            if apply is not None:
                chunk.metrics = {**result.metrics, **(apply(session, lease, result) or {})}
            pipeline.stage_chunk_done(session, job, chunk.stage_id)
            pipeline.settle(session, job)
            _count(session, lease, result, chunk)
    if not applied:
        for made in (result.artifact, *result.side_artifacts):
            if made is not None and not _published(made):
                discard(made)
        let_go(lease)
    return applied


def publish(lease: Lease, result: Result, apply: Apply | None = None) -> bool:
    """:func:`finish`, again and again while Postgres is away, as long as the lease may live.

    Hours of work are not dropped for a restart of the database. Call it under a Heartbeat.
    """
    while True:
        try:
            return finish(lease, result, apply)
        except (OperationalError, InternalError) as error:
            log.warning("result of %s cannot be published yet: %s", lease.chunk_id, error)
            if lease.lost.wait(1.0):
                raise LeaseLost(lease.chunk_id) from error


def let_go(lease: Lease, reason: str = "its holder let it go") -> None:
    """Give a chunk back unfinished: ready at once, and not counted as an attempt.

    So do a worker that is told to stop, and one whose job is paused or cancelled (whose chunk then
    ends). Nothing happens to a chunk that the lease does not hold any more.
    """
    with transaction() as session:
        job, chunk = _held(session, lease)
        if job is not None and chunk is not None:
            _give_back(session, job, chunk, reason)
    lease.lost.set()


def _give_back(session: Session, job: Job, chunk: Chunk, reason: str) -> None:
    """The end of a lease that is no attempt; the job's row is locked."""
    chunk.lock_token = chunk.lock_owner = chunk.lock_expires_at = None
    if job.state in GOING:
        chunk.state = State.READY
        chunk.attempt -= 1
        if job.state == State.RUNNING:
            pipeline.ring(session, chunk)
        else:
            reason = "its job is paused"
        said = {"stage": chunk.kind, "chunk": chunk.id, "reason": reason}
        emit(session, job.id, "chunk.returned", said)
        totals.add(session, "chunks", chunk.kind, "returned")
    else:
        chunk.state = State.CANCELLED
        chunk.finished_at = pipeline.NOW
    pipeline.settle(session, job)


def fail(lease: Lease, problem: Problem, *, retry: bool, delay: float = 0.0) -> None:
    """Report a failed attempt: requeue it while attempts are left, else end the job.

    `delay`: seconds until the chunk is announced again.
    """
    with transaction() as session:
        job, chunk = _held(session, lease)
        if job is not None and chunk is not None:
            retry_or_end(session, job, chunk, problem, retry=retry, delay=delay)


def retry_or_end(
    session: Session, job: Job, chunk: Chunk, problem: Problem, *, retry: bool, delay: float = 0.0
) -> None:
    """Common end of a failed attempt and of a dead lease; the job's row is locked."""
    body = problem.model_dump(exclude_none=True)
    chunk.lock_token = chunk.lock_owner = chunk.lock_expires_at = None
    chunk.error = body
    if job.state not in GOING:
        chunk.state = State.CANCELLED
        chunk.finished_at = pipeline.NOW
        pipeline.settle(session, job)
        return
    said = {"stage": chunk.kind, "chunk": chunk.id, "attempt": chunk.attempt, "error": body}
    if retry and chunk.attempt < get_settings().max_attempts:
        chunk.state = State.READY
        if delay:
            said["delay_seconds"] = delay
        if job.state == State.RUNNING:
            pipeline.ring(session, chunk, delay)
        emit(session, job.id, "chunk.requeued", said)
        totals.add(session, "chunks", chunk.kind, "retried")
        pipeline.settle(session, job)
        return
    chunk.state = State.FAILED
    chunk.finished_at = pipeline.NOW
    emit(session, job.id, "chunk.failed", said)
    totals.add(session, "chunks", chunk.kind, "failed")
    pipeline.fail_job(session, job, body)


def reap() -> int:
    """Requeue or end chunks whose lease ran out; returns how many.

    Those of a job that somebody else is changing at this moment wait for the next time.
    """
    with transaction() as session:
        expired = session.execute(
            select(Chunk.id, Chunk.job_id).where(
                Chunk.state == State.RUNNING, Chunk.lock_expires_at < func.clock_timestamp()
            )
        ).all()
    reaped = 0
    for chunk_id, job_id in expired:
        with transaction() as session:
            # One that somebody holds, perhaps a frozen process, must not keep others waiting.
            job = session.scalar(
                select(Job).where(Job.id == job_id).with_for_update(skip_locked=True)
            )
            if job is None:
                continue
            chunk = session.scalar(
                select(Chunk)
                .where(
                    Chunk.id == chunk_id,
                    Chunk.state == State.RUNNING,
                    Chunk.lock_expires_at < func.clock_timestamp(),
                )
                .with_for_update()
            )
            if chunk is None:
                continue
            reaped += 1
            totals.add(session, "lease_expiries", chunk.kind)
            if job.state == State.PAUSING:  # perhaps its worker is at a long step, and has heard
                _give_back(session, job, chunk, "its job is paused")
                continue
            problem = Problem(
                code="worker_lost",
                title="A worker was lost",
                detail=f"{chunk.lock_owner} stopped renewing its lease (attempt {chunk.attempt})",
                fault="system",
            )
            retry_or_end(session, job, chunk, problem, retry=True)
    return reaped


def _lock(session: Session, job_id: str) -> Job | None:
    """The job, locked; None: it failed by another chunk, and was deleted before we noticed."""
    return session.get(Job, job_id, with_for_update=True, populate_existing=True)


def _held(session: Session, lease: Lease) -> tuple[Job | None, Chunk | None]:
    """The job, locked, and the chunk if the lease still holds it."""
    job = _lock(session, lease.job_id)
    ours = select(Chunk).where(Chunk.id == lease.chunk_id, Chunk.lock_token == lease.token)
    return job, session.scalar(ours.execution_options(populate_existing=True))


def _count(session: Session, lease: Lease, result: Result, chunk: Chunk) -> None:
    """What the project used for this result: the last row of the transaction to be locked, but for
    the totals'."""
    assert chunk.started_at is not None and chunk.finished_at is not None
    seconds = (chunk.finished_at - chunk.started_at).total_seconds()
    totals.add_chunk(session, chunk.kind, seconds, result.counts)
    totals.add(session, "device_seconds", chunk.kind, by=result.gpu_seconds)
    tokens = result.counts.get("prompt_tokens", 0) + result.counts.get("tokens", 0)
    usage.add(session, lease.project, tokens, result.gpu_seconds)


def _release(session: Session, lease: Lease) -> bool:
    """The guard: the chunk has succeeded only if its lease is still ours."""
    result = session.execute(
        update(Chunk)
        .where(Chunk.id == lease.chunk_id, Chunk.lock_token == lease.token)
        .values(
            state=State.SUCCEEDED,
            lock_token=None,
            lock_owner=None,
            lock_expires_at=None,
            finished_at=func.clock_timestamp(),
        )
        .execution_options(synchronize_session=False)
    )
    return _hit(result)


def _published(made: Published) -> bool:
    """The database knows this file: the connection broke after the commit, not before it."""
    with transaction() as session:
        known = session.scalar(select(Artifact.id).where(Artifact.path == made.path))
    return known is not None


def _hit(result: Any) -> bool:
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _add_artifact(session: Session, published: Published) -> str:
    artifact = Artifact(id=new_id("art"), **published.__dict__)
    session.add(artifact)
    session.flush()
    return artifact.id


def _lease_time() -> dt.timedelta:
    return dt.timedelta(seconds=get_settings().lease_seconds)
