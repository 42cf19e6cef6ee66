"""Totals of the work, for Prometheus: they only grow, whatever is restarted, retried or deleted.

A process that counted in its memory would have to be scraped itself, each worker at an address of
its own, and would lose what it had counted since the last scrape whenever it is replaced. These
rows are written with what they count, by whichever node, and the gateway tells them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from selftaught.database.tables import Total

BUCKETS: Final = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Upper bounds (s) of the histogram of seconds, and one above them all."""
PARSE_FAILURES: Final = ("judgments_unparsable", "parse_failures", "modification_unparsable")
"""Counts of a chunk that are answers in which what was asked for is not found."""

Key = tuple[str, str, str]
_QUEUED = "totals"
_ADD = text(
    """
    INSERT INTO totals (name, stage, part, value) VALUES (:name, :stage, :part, :value)
    ON CONFLICT (name, stage, part) DO UPDATE SET value = totals.value + excluded.value
    """
)


def add(session: Session, name: str, stage: str = "", part: str = "", by: float = 1.0) -> None:
    """Count with what the transaction does, if it is committed.

    The rows, which everybody shares, are its last statement and in one order, so that nobody waits
    long for them and none deadlock.
    """
    if by:
        session.info.setdefault(_QUEUED, Counter())[name, stage, part] += by


def add_chunk(session: Session, stage: str, seconds: float, counts: Mapping[str, int]) -> None:
    """A chunk's applied result: how long its lease was held, its tokens, what could not be read."""
    add(session, "chunks", stage, "succeeded")
    bucket = next((str(bound) for bound in BUCKETS if seconds <= bound), "+Inf")
    add(session, "seconds", stage, bucket)
    add(session, "seconds", stage, "sum", max(0.0, seconds))
    add(session, "tokens", stage, "prompt", counts.get("prompt_tokens", 0))
    add(session, "tokens", stage, "completion", counts.get("tokens", 0))
    for name in PARSE_FAILURES:
        add(session, "parse_failures", stage, "", counts.get(name, 0))


def read(session: Session) -> dict[Key, float]:
    """All of them."""
    rows = session.execute(select(Total.name, Total.stage, Total.part, Total.value))
    return {(name, stage, part): value for name, stage, part, value in rows}


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    queued: Counter[Key] | None = session.info.pop(_QUEUED, None)
    if queued:
        session.flush()
        rows = [
            {"name": name, "stage": stage, "part": part, "value": value}
            for (name, stage, part), value in sorted(queued.items())
        ]
        session.execute(_ADD, rows)
