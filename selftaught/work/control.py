"""What people ask of a job: cancel, pause, resume, retry. Asking again changes nothing.

Each runs inside the caller's transaction and locks the job's row, as everything does that changes a
job; so whatever else happens to it at the same moment comes before or after, never between. What
workers hold they let go of at their next heartbeat and step (kernel.let_go).
"""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from selftaught.contracts import TERMINAL, State
from selftaught.database.tables import Chunk, Iteration, Job, Stage
from selftaught.work import needs, pipeline
from selftaught.work.events import emit


class JobRefuses(Exception):
    """The job is in a state in which this cannot be asked of it; `code` is for programs."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def cancel_job(session: Session, job_id: str) -> None:
    """Ask a job to stop. Waiting chunks end at once; published versions stay.

    Raises JobRefuses (job_finished).
    """
    job = _unfinished(session, job_id)
    if job.state != State.CANCELLING:
        job.state = State.CANCELLING
        job.cancel_requested_at = func.clock_timestamp()
        job.paused_at = None
        emit(session, job.id, "job.cancelling")
    pipeline.settle(session, job)


def pause_job(session: Session, job_id: str) -> None:
    """Ask a job to stand still; it is paused once no worker holds anything of it.

    Raises JobRefuses (job_finished, job_cancelling).
    """
    job = _unfinished(session, job_id)
    _not_cancelling(job)
    if job.state == State.RUNNING:
        job.state = State.PAUSING
        emit(session, job.id, "job.pausing")
        pipeline.settle(session, job)


def resume_job(session: Session, job_id: str) -> None:
    """Let a paused job, or one that is about to be, go on where it stands.

    Raises JobRefuses (job_finished, job_cancelling).
    """
    job = _unfinished(session, job_id)
    _not_cancelling(job)
    if job.state != State.RUNNING:
        job.state = State.RUNNING
        job.paused_at = None
        emit(session, job.id, "job.resumed")
        pipeline.announce_again(session, job)


def retry_job(session: Session, job_id: str) -> None:
    """Let a failed job go on from the stage that failed: what that stage has finished is kept.

    Its other chunks are ready again, with all their attempts. A job that is going on, or paused, is
    left alone. Raises JobRefuses (job_finished, job_cancelling,
    data_removed, nothing_to_retry).
    """
    job = pipeline.lock_job(session, job_id)
    _not_cancelling(job)
    if job.state in TERMINAL and job.state != State.FAILED:
        raise _finished(job)
    if job.state != State.FAILED:
        return
    if job.data_removed_at is not None:
        raise JobRefuses("data_removed", "the files that it would go on with were removed by age")
    if (missing := needs.lacking(session, job)) is not None:
        raise JobRefuses("data_removed", f"what it would go on with was deleted: {missing}")
    failed = (Chunk.job_id == job.id, Chunk.state.in_((State.FAILED, State.CANCELLED)))
    chunks = pipeline.lock_chunks(session, *failed)
    if not chunks:
        detail = "the stage that failed had nothing to work on, and would have nothing again"
        raise JobRefuses("nothing_to_retry", detail)
    session.execute(
        update(Chunk)
        .where(*failed)
        .values(state=State.READY, attempt=0, error=None, finished_at=None, rung_at=None)
        .execution_options(synchronize_session=False)
    )
    for table in (Stage, Iteration):
        session.execute(
            update(table)
            .where(table.job_id == job.id, table.state == State.FAILED)
            .values(state=State.RUNNING, finished_at=None)
            .execution_options(synchronize_session=False)
        )
    job.state = State.RUNNING
    job.error = job.finished_at = None
    job.retried_at = func.clock_timestamp()
    kind = session.scalars(select(Chunk.kind).where(Chunk.id == chunks[0])).one()
    emit(session, job.id, "job.retried", {"stage": kind, "chunks": len(chunks)})
    pipeline.announce_again(session, job)


def _unfinished(session: Session, job_id: str) -> Job:
    job = pipeline.lock_job(session, job_id)
    if job.state in TERMINAL:
        raise _finished(job)
    return job


def _not_cancelling(job: Job) -> None:
    if job.state == State.CANCELLING:
        raise JobRefuses("job_cancelling", f"job {job.id!r} is being cancelled")


def _finished(job: Job) -> JobRefuses:
    return JobRefuses("job_finished", f"job {job.id!r} has already {job.state}")
