"""Canaries: a version tried on a share of an alias's calls, beside the version that it names.

Everything here runs inside the caller's transaction and only reads and writes rows. Who begins or
ends one holds the lock of the alias's row, so that a move and a canary are one after the other. Any
move of the alias ends its canary: what it was compared with is no longer what answers.
"""

from __future__ import annotations

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from selftaught import webhooks
from selftaught.database.tables import Alias, Canary, ModelVersion
from selftaught.ids import new_id
from selftaught.keeping import holds

CHANNEL = "selftaught_versions"
"""Postgres tells listeners on it, at commit, the id of each version that has come to be named."""


class VersionGone(Exception):
    """The version was deleted."""


class CanaryIsIncumbent(Exception):
    """The alias names this version already."""


def active(session: Session, model: str, alias: str) -> Canary | None:
    """The alias's canary that has not ended."""
    return session.scalars(
        select(Canary).where(
            Canary.model == model, Canary.alias == alias, Canary.ended_at.is_(None)
        )
    ).one_or_none()


def start(
    session: Session, row: Alias, version: ModelVersion, mode: str, share: float, reason: str
) -> Canary:
    """Try a version on a share of the calls by an alias, whose row is locked.

    The same version in the same mode only changes its share and goes on: questions that it got it
    keeps while the share grows. Anything else ends the one before. Raises CanaryIsIncumbent,
    VersionGone.
    """
    if holds.version(session, version.id) is None:  # deleted meanwhile
        raise VersionGone(version.ref)
    if row.version_id == version.id:
        raise CanaryIsIncumbent(f"{row.model}:{row.alias} names {version.ref} already")
    before = active(session, row.model, row.alias)
    if before is not None:
        if (before.version_id, before.mode) == (version.id, mode):
            before.share, before.reason = share, reason
            session.flush()
            return before
        end(session, row.model, row.alias, "replaced")
    found = Canary(
        id=new_id("can"),
        model=row.model,
        alias=row.alias,
        base_id=row.version_id,
        version_id=version.id,
        mode=mode,
        share=share,
        reason=reason,
    )
    session.add(found)
    session.flush()
    session.refresh(found)
    tell(session, version.id)
    _tell_webhooks(session, found, "canary.started")
    return found


def end(session: Session, model: str, alias: str, reason: str) -> Canary | None:
    """End the alias's canary; None if it has none. What it found stays."""
    found = active(session, model, alias)
    if found is not None:
        found.ended_at = session.scalar(select(func.clock_timestamp()))
        found.ended_reason = reason
        session.flush()
        _tell_webhooks(session, found, "canary.ended")
    return found


def _tell_webhooks(session: Session, canary: Canary, event: str) -> None:
    told = {
        "canary": canary.id,
        "model": canary.model,
        "alias": canary.alias,
        "version": session.get_one(ModelVersion, canary.version_id).ref,
        "mode": canary.mode,
        "reason": canary.ended_reason or canary.reason,
    }
    webhooks.tell(session, canary.project_id, event, told)


def tell(session: Session, version_id: str) -> None:
    """Let evaluators know, at commit, that a version is named and soon asked."""
    session.execute(text("SELECT pg_notify(:channel, :id)"), {"channel": CHANNEL, "id": version_id})
