"""What is deleted by age alone: rows of the audit log, and answers to an Idempotency-Key."""

from __future__ import annotations

from sqlalchemy import text

from selftaught.database import transaction
from selftaught.settings import get_settings

BATCH = 1000
"""Rows of one transaction."""
_OLD = "{} < clock_timestamp() - make_interval(secs => :age) LIMIT :batch"
_AUDIT = text(
    "DELETE FROM audit WHERE ctid = ANY(ARRAY(SELECT ctid FROM audit WHERE "
    + _OLD.format("at")
    + ")) RETURNING 1"
)
_ANSWERS = text(
    "DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotency_keys WHERE "
    + _OLD.format("reserved_at")
    + ")) RETURNING 1"
)


def sweep() -> int:
    """Delete what SELFTAUGHT_AUDIT_DAYS and SELFTAUGHT_IDEMPOTENCY_HOURS say; how many rows."""
    settings = get_settings()
    ages = {_AUDIT: settings.audit_days * 86400, _ANSWERS: settings.idempotency_hours * 3600}
    gone = 0
    for statement, age in ages.items():
        found = BATCH if age else 0
        while found == BATCH:
            with transaction() as session:
                found = len(session.execute(statement, {"age": age, "batch": BATCH}).all())
            gone += found
    return gone
