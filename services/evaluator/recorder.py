"""What is written down about answers, off their way: rows wait in memory and go out together.

An answer never waits for them. Where more wait than there is room for, because Postgres is away or
slow, rows are dropped and counted.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections import Counter as Counts
from collections import deque
from typing import Any

from anyio import to_thread
from prometheus_client import Counter
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from selftaught import usage
from selftaught.database import transaction
from selftaught.database.tables import Canary, CanaryVerdict, LoggedVerdict, ModelVersion
from selftaught.settings import get_settings

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
RETRY_SECONDS = 2.0
SWEEP_SECONDS = 60.0
BATCH = 500
"""Rows of one transaction, written or deleted."""
SWEEP_BATCHES = 20
"""Transactions of one sweep."""
ROOM = 32 * 2**20
"""Bytes of rows that may wait, about."""

LOST = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""Postgres is away, or only to be read, as after a failover: what waits is written later."""

Kind = type[LoggedVerdict] | type[CanaryVerdict]
Row = dict[str, Any]

SWEEP = text(
    """
    DELETE FROM verdicts WHERE id IN (
        SELECT id FROM verdicts WHERE created_at < clock_timestamp() - make_interval(secs => :age)
        LIMIT :batch FOR UPDATE SKIP LOCKED
    ) RETURNING id
    """
)


_OF: tuple[tuple[Kind, type[ModelVersion] | type[Canary], str], ...] = (
    (LoggedVerdict, ModelVersion, "version_id"),
    (CanaryVerdict, Canary, "canary_id"),
)
"""Whose rows they are."""


class Recorder:
    """Lives in one event loop, but for its counter."""

    def __init__(self) -> None:
        self.dropped = Counter(
            "selftaught_verdict_rows_dropped",
            "Rows about verdicts that were not written, for want of room or by an error.",
            registry=None,
        )
        self._waiting: deque[tuple[Kind, Row, int]] = deque()
        self._size = 0
        self._tokens: Counts[str] = Counts()
        self._writing = asyncio.Lock()

    def put(self, kind: Kind, row: Row) -> None:
        """Write a row soon; drop it if too much waits."""
        size = _size(row)
        if self._size + size > ROOM:
            self.dropped.inc()
            return
        self._waiting.append((kind, row, size))
        self._size += size

    def spend(self, project: str, tokens: int) -> None:
        """Count tokens that models read and wrote for a project, soon."""
        self._tokens[project] += tokens

    async def run(self) -> None:
        """Write what waits, and delete what is too old, until cancelled."""
        swept = 0.0
        while True:
            try:
                await self.flush()
                due = time.monotonic() - swept > SWEEP_SECONDS
                if due and await to_thread.run_sync(sweep) < SWEEP_BATCHES * BATCH:
                    swept = time.monotonic()
            except LOST as error:
                logger.warning("verdicts wait for Postgres: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # this task must not end: nothing would be written any more
                logger.exception("a round of writing verdicts failed")
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(FLUSH_SECONDS)

    async def flush(self) -> None:
        """Write all that waits. Raises one of LOST: it waits on."""
        async with self._writing:
            if spent := +self._tokens:
                await to_thread.run_sync(_count, spent)
                self._tokens -= spent
            while batch := [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]:
                try:
                    await to_thread.run_sync(_write, [(kind, row) for kind, row, _ in batch])
                except LOST:
                    raise
                except Exception:
                    logger.exception("%d rows about verdicts could not be written", len(batch))
                    self.dropped.inc(len(batch))
                for _, _, size in batch:
                    self._waiting.popleft()
                    self._size -= size

    async def close(self) -> None:
        """Write what waits, if Postgres is there; else drop it."""
        try:
            await self.flush()
        except LOST as error:
            tokens, rows = self._tokens.total(), len(self._waiting)
            logger.warning("%d rows about verdicts, %d tokens are lost: %s", rows, tokens, error)
            self.dropped.inc(len(self._waiting))


def _count(spent: Counts[str]) -> None:
    with transaction() as session:
        for project, tokens in sorted(spent.items()):  # always in this order: no deadlock
            usage.add(session, project, tokens)


def _write(rows: list[tuple[Kind, Row]]) -> None:
    """A row that is there already stays: a try that failed at its end may have written it."""
    with transaction() as session:
        now = session.scalars(select(func.clock_timestamp())).one()
        ahead = dt.datetime.now(dt.UTC) - now  # of Postgres's clock, by which rows are kept
        for kind, of, column in _OF:
            found = [row for mine, row in rows if mine is kind]
            if kind is LoggedVerdict:
                found = [{**row, "created_at": row["created_at"] - ahead} for row in found]
            ids = {row[column] for row in found}
            # What was deleted meanwhile must not cost the other rows.
            named = select(of.id).where(of.id.in_(ids)).order_by(of.id)
            held = set(session.scalars(named.with_for_update(read=True, key_share=True)))
            if there := [row for row in found if row[column] in held]:
                session.execute(insert(kind).on_conflict_do_nothing(), there)


def sweep() -> int:
    """Delete logged verdicts that are older than the settings keep them; returns how many.

    At most SWEEP_BATCHES * BATCH in one turn, so that writing need not wait for long.
    """
    age = get_settings().verdict_log_days * 86400
    gone = 0
    for _ in range(SWEEP_BATCHES):
        with transaction() as session:
            found = len(session.execute(SWEEP, {"age": age, "batch": BATCH}).all())
        gone += found
        if found < BATCH:
            break
    return gone


def _size(value: Any) -> int:
    """About the bytes that a row takes in memory."""
    if isinstance(value, str):
        return 80 + (len(value) if value.isascii() else 4 * len(value))
    if isinstance(value, dict):
        return 200 + sum(_size(part) for part in value.values())
    return sum(_size(part) for part in value) if isinstance(value, list) else 50
