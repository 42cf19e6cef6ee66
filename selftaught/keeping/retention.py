"""What is deleted by age: the files of ended jobs, events, canaries' verdicts, texts of reviews.

Days are settings (SELFTAUGHT_RETAIN_..), 0 keeps for ever, and ages are Postgres's clock. The data
of a job stays as long as a version that it made is live: an alias names it or has named it (so that
a rollback can), a canary tries it, or such a version descends from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from selftaught.database import transaction
from selftaught.database.tables import Artifact, Job
from selftaught.keeping import erase
from selftaught.settings import get_settings

BATCH = 1000
"""Rows of one transaction."""

LIVE = """
    WITH RECURSIVE live (id) AS (
        SELECT version_id FROM aliases
        UNION SELECT version_id FROM alias_history
        UNION SELECT unnest(ARRAY[version_id, base_id]) FROM canaries WHERE ended_at IS NULL
        UNION SELECT parent_id FROM model_versions JOIN live USING (id) WHERE parent_id IS NOT NULL
    )
"""
"""Versions that are, or may at once be, asked; and all that they were trained from."""

_OLD_JOBS = text(
    LIVE
    + """
    SELECT id FROM jobs
    WHERE state = ANY(:ended) AND (kind = 'batch') = :batch AND data_removed_at IS NULL
      AND finished_at < clock_timestamp() - make_interval(secs => :age)
      AND id NOT IN (SELECT job_id FROM model_versions JOIN live USING (id)
                     WHERE job_id IS NOT NULL)
    ORDER BY finished_at
    """
)

_OLD = "clock_timestamp() - make_interval(secs => :age)"
ROWS = {
    "events": (
        "retain_events_days",
        "FROM events WHERE ctid = ANY(ARRAY(SELECT e.ctid FROM events e JOIN jobs j"
        " ON j.id = e.job_id WHERE j.state = ANY(:ended) AND j.finished_at < "
        f"{_OLD} LIMIT :batch))",
    ),
    "canary verdicts": (
        "retain_canary_days",
        "FROM canary_verdicts WHERE ctid = ANY(ARRAY(SELECT v.ctid FROM canary_verdicts v"
        f" JOIN canaries c ON c.id = v.canary_id WHERE c.ended_at < {_OLD} LIMIT :batch))",
    ),
    "audit": (
        "retain_audit_days",
        f"FROM audit WHERE ctid = ANY(ARRAY(SELECT ctid FROM audit WHERE at < {_OLD}"
        " LIMIT :batch))",
    ),
    "idempotency keys": (
        "idempotency_days",
        "FROM idempotency_keys WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotency_keys"
        f" WHERE reserved_at < {_OLD} LIMIT :batch))",
    ),
}
"""What -> its setting, and the rows that are too old, at most a batch of them."""

_OLD_ITEMS = (
    "SELECT i.id FROM review_items i JOIN jobs j ON j.id = i.job_id"
    f" WHERE i.instruction <> '' AND j.state = ANY(:ended) AND j.finished_at < {_OLD}"
    " LIMIT :batch"
)
_BLANK_ITEMS = text(
    f"WITH old AS MATERIALIZED ({_OLD_ITEMS} FOR UPDATE OF i SKIP LOCKED), comments AS"
    " (UPDATE reviews SET comment = NULL WHERE item_id IN (SELECT id FROM old))"
    " UPDATE review_items SET instruction = '', response_a = '', response_b = '', context = '[]'"
    " WHERE id IN (SELECT id FROM old) RETURNING id"
)


@dataclass(frozen=True)
class Expired:
    """What was removed, or would be: rows, and bytes of the files with them."""

    what: str
    rows: int
    bytes: int = 0


def expire(dry_run: bool) -> list[Expired]:
    """Delete what is older than the settings keep it, rows first; tells what that is."""
    settings = get_settings()
    return [
        _jobs("job data", settings.retain_job_days, batch=False, dry_run=dry_run),
        _jobs("batches", settings.retain_batch_days, batch=True, dry_run=dry_run),
        *(
            _rows(what, getattr(settings, setting), query, dry_run)
            for what, (setting, query) in ROWS.items()
        ),
        _review_texts(settings.retain_review_days, dry_run),
    ]


def _jobs(what: str, days: float, *, batch: bool, dry_run: bool) -> Expired:
    """Files of jobs that ended so long ago. A job that somebody needs meanwhile is left out."""
    if not days:
        return Expired(what, 0)
    with transaction() as session:
        asked = {"age": days * 86400, "batch": batch, "ended": erase.ENDED}
        found = list(session.scalars(_OLD_JOBS, asked))
    rows = size = 0
    for job_id in found:
        gone: list[Path] = []
        with transaction() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.data_removed_at is not None:
                continue
            files, taken = _files(session, job_id)
            if not dry_run:
                if session.scalar(text(LIVE + _MADE_LIVE), {"id": job_id}):
                    continue
                try:
                    gone = erase.job_data(session, job)
                except (erase.InUse, erase.NotEnded):
                    continue
        erase.remove_under_lock(gone)
        rows, size = rows + files, size + taken
    return Expired(what, rows, size)


_MADE_LIVE = " SELECT 1 FROM model_versions JOIN live USING (id) WHERE job_id = :id LIMIT 1"


def _files(session: Session, job_id: str) -> tuple[int, int]:
    """How many files of a job have rows, and their bytes."""
    path = Artifact.path
    of_job = (
        func.starts_with(path, f"jobs/{job_id}/")
        | func.starts_with(path, f"reviews/{job_id}/")
        | (path == f"batches/{job_id}.jsonl")
    )
    total = func.coalesce(func.sum(Artifact.bytes), 0)
    rows, size = session.execute(select(func.count(), total).where(of_job)).one()
    return int(rows), int(size)


def _rows(what: str, days: float, query: str, dry_run: bool) -> Expired:
    if not days:
        return Expired(what, 0)
    asked = {"age": days * 86400, "batch": BATCH, "ended": erase.ENDED}
    if dry_run:
        with transaction() as session:
            whole = {**asked, "batch": None}
            return Expired(what, session.scalar(text(f"SELECT count(*) {query}"), whole) or 0)
    statement = text(f"DELETE {query} RETURNING 1")
    return Expired(what, _in_batches(lambda s: len(s.execute(statement, asked).all())))


def _review_texts(days: float, dry_run: bool) -> Expired:
    """Verdicts and agreement stay, for the gate; the pairs' texts and the comments go."""
    if not days:
        return Expired("review texts", 0)
    asked = {"age": days * 86400, "batch": BATCH, "ended": erase.ENDED}
    if dry_run:
        with transaction() as session:
            whole = {**asked, "batch": None}
            count = text(f"SELECT count(*) FROM ({_OLD_ITEMS}) AS old")
            return Expired("review texts", session.scalar(count, whole) or 0)
    rows = _in_batches(lambda session: len(session.execute(_BLANK_ITEMS, asked).all()))
    return Expired("review texts", rows)


def _in_batches(work: Callable[[Session], int]) -> int:
    """Transactions of `work` until one finds less than a batch; returns what all did."""
    total = 0
    while True:
        with transaction() as session:
            done = work(session)
        total += done
        if done < BATCH:
            return total
