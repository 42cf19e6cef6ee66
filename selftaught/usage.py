"""What projects use: tokens and device seconds by day (UTC, Postgres's clock), and stored bytes.

Everything but :class:`Held` runs inside the caller's transaction. A row of a day is locked by
whoever adds to it, so adding comes last in a transaction that locks other rows, too.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from selftaught.contracts import Limits
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Project

log = logging.getLogger(__name__)

_ADD = text(
    """
    INSERT INTO usage (project_id, day, tokens, gpu_seconds)
    VALUES (:project, (clock_timestamp() AT TIME ZONE 'UTC')::date, :tokens, :gpu_seconds)
    ON CONFLICT (project_id, day) DO UPDATE SET
        tokens = usage.tokens + excluded.tokens,
        gpu_seconds = usage.gpu_seconds + excluded.gpu_seconds
    """
)
_STANDING = text(
    """
    SELECT limits, coalesce(tokens, 0) AS tokens, coalesce(gpu_seconds, 0) AS gpu_seconds,
        clock_timestamp() AS now
    FROM projects LEFT JOIN usage ON project_id = id
        AND day = (clock_timestamp() AT TIME ZONE 'UTC')::date
    WHERE id = :project
    """
)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('stored bytes of ' || :project, 0))")


class NoRoom(Exception):
    """The project may not store that much; the message is fit for whoever sent it."""


@dataclass(frozen=True)
class Standing:
    """A project's limits, and what it has used today."""

    limits: Limits
    tokens: int
    gpu_seconds: float
    now: dt.datetime

    @property
    def tomorrow(self) -> dt.datetime:
        """When a day's quotas are whole again."""
        midnight = self.now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + dt.timedelta(days=1)


def add(session: Session, project: str, tokens: int = 0, gpu_seconds: float = 0.0) -> None:
    """Count what was used, today."""
    if tokens or gpu_seconds:
        used = {"project": project, "tokens": tokens, "gpu_seconds": gpu_seconds}
        session.execute(_ADD, used)


def standing(session: Session, project: str) -> Standing:
    """A project that is not there has no limits."""
    row = session.execute(_STANDING, {"project": project}).one_or_none()
    if row is None:
        return Standing(Limits(), 0, 0.0, dt.datetime.now(dt.UTC))
    return Standing(Limits.model_validate(row.limits), row.tokens, row.gpu_seconds, row.now)


def change_limits(session: Session, project: str, changed: dict[str, int | None]) -> Project | None:
    """Set some of a project's limits, None ends one; None if there is no such project."""
    row = session.get(Project, project, with_for_update=True)
    if row is not None:
        kept = {**row.limits, **changed}
        row.limits = {name: value for name, value in kept.items() if value is not None}
        session.flush()
    return row


def stored(session: Session, project: str) -> int:
    """Bytes of the files that its rows name. Weights of versions are not counted."""
    total = select(func.coalesce(func.sum(Artifact.bytes), 0))
    return int(session.scalars(total.where(Artifact.project_id == project)).one())


def take_room(session: Session, project: str, size: int) -> None:
    """Raises NoRoom unless the project may store `size` bytes more.

    Until the transaction ends no other one of this project takes room; so call it in the one that
    adds the file's row.
    """
    row = session.get(Project, project)
    limit = None if row is None else Limits.model_validate(row.limits).stored_bytes
    if limit is None:
        return
    session.execute(_LOCK, {"project": project})
    used = stored(session, project)
    if used + size > limit:
        raise NoRoom(f"{used} bytes are stored, {size} more would exceed the quota of {limit}")


class Held:
    """Counts the device seconds of a block.

    A block that ends well leaves `seconds` to its caller, who publishes them with its result;
    those of any other one are counted at once.
    """

    def __init__(self, project: str, devices: int) -> None:
        self._project, self._devices = project, devices
        self._started = time.monotonic()
        self.seconds = 0.0

    def __enter__(self) -> Held:
        self._started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.seconds = (time.monotonic() - self._started) * self._devices
        if kind is None:
            return
        try:
            with transaction() as session:
                add(session, self._project, gpu_seconds=self.seconds)
        except SQLAlchemyError as error:  # what went wrong in the block matters more
            log.warning("%.0f device seconds are not counted: %s", self.seconds, error)
