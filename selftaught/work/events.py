"""Events of a job, numbered 1, 2, 3… without gaps, in the order in which they became visible.

The number comes from the job's row, whose lock is held until commit; so a reader that has seen
number n has seen everything before it, and may resume after n.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from selftaught import webhooks
from selftaught.database.tables import Event, Job


def emit(session: Session, job_id: str, type_: str, data: dict[str, Any] | None = None) -> int:
    """Append an event in the caller's transaction, and tell webhooks; returns its number."""
    seq, project_id, kind, model = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(event_seq=Job.event_seq + 1)
        .returning(Job.event_seq, Job.project_id, Job.kind, Job.model)
        .execution_options(synchronize_session=False)
    ).one()
    session.add(Event(job_id=job_id, seq=seq, type=type_, data=data or {}))
    webhooks.tell_of_job(session, (job_id, project_id, kind, model), seq, type_, data or {})
    return int(seq)
