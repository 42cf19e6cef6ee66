"""Canaries: a version tried on a share of an alias's calls, and how it compares."""

from __future__ import annotations

from typing import Annotated

from anyio import from_thread
from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import aliases, canaries
from selftaught.contracts import CanaryIn, CanaryOut, CanaryReport, Page
from selftaught.database import transaction
from selftaught.database.tables import Canary, ModelVersion
from selftaught.http import Refused, problem_docs
from services.api import problems, reports
from services.api.deps import Cursor, Limit, Name, StorableBody
from services.api.judge import prepare
from services.api.models import AliasName

router = APIRouter(tags=["canaries"])
CanaryId = Annotated[
    str, Path(description="A canary's id.", examples=["can_019ac5a2e0b14f6d1a2b3c4d"])
]
_PATH = "/v1/models/{name}/aliases/{alias}/canary"


@router.put(_PATH, responses=problem_docs(404, 409), dependencies=[StorableBody])
def put_canary(name: Name, alias: AliasName, body: CanaryIn, request: Request) -> CanaryOut:
    """Try a version on a share of the questions that come by an alias.

    By `shadow` it judges what the alias's version answers, after that and unseen; by `share` it
    answers, and answers say `canary: true`. Which questions follows from what they ask. It begins
    in every evaluator at once. The same version and mode again only changes the share; another one
    ends it. So does any move of the alias.
    """
    with transaction() as session:
        version = aliases.get_version(session, name, body.version)
    if body.prepare:
        from_thread.run(prepare, request.app, version.id)
    with transaction() as session:
        row = aliases.lock(session, name, alias)
        if row is None:
            raise problems.not_found("alias", f"{name}:{alias}")
        try:
            found = canaries.start(session, row, version, body.mode, body.share, body.reason)
        except canaries.VersionGone as error:
            raise problems.not_found("version", str(error)) from error
        except canaries.CanaryIsIncumbent as error:
            raise Refused(409, "canary_is_incumbent", str(error), param="version") from error
        return _out(session, [found])[0]


@router.get(_PATH, responses=problem_docs(404))
def get_canary(name: Name, alias: AliasName) -> CanaryOut:
    """The alias's canary, as long as it lives."""
    with transaction() as session:
        return _out(session, [_active(session, name, alias)])[0]


@router.delete(_PATH, responses=problem_docs(404))
def delete_canary(name: Name, alias: AliasName) -> CanaryOut:
    """End the alias's canary; what it found can be read on under its id."""
    with transaction() as session:
        aliases.lock(session, name, alias)
        _active(session, name, alias)
        found = canaries.end(session, name, alias, "deleted")
        assert found is not None  # the alias's lock keeps others from ending it meanwhile
        return _out(session, [found])[0]


@router.get(_PATH + "/report", responses=problem_docs(404))
def get_canary_report(name: Name, alias: AliasName) -> CanaryReport:
    """How the alias's canary compares with the version that the alias names, so far."""
    with transaction() as session:
        found = _active(session, name, alias)
        return reports.canary(session, found.id, _out(session, [found])[0])


@router.get("/v1/canaries", responses=problem_docs())
def list_canaries(
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    alias: Annotated[str | None, Query(description="Of this alias.")] = None,
    after: Cursor = None,
    limit: Limit = 20,
) -> Page[CanaryOut]:
    """Canaries, living and ended, newest first."""
    query = select(Canary)
    if model is not None:
        query = query.where(Canary.model == model)
    if alias is not None:
        query = query.where(Canary.alias == alias)
    if after is not None:
        query = query.where(Canary.id < after)
    with transaction() as session:
        rows = list(session.scalars(query.order_by(Canary.id.desc()).limit(limit + 1)))
        return Page(data=_out(session, rows[:limit]), has_more=len(rows) > limit)


@router.get("/v1/canaries/{canary_id}/report", responses=problem_docs(404))
def get_report_of_canary(canary_id: CanaryId) -> CanaryReport:
    """How a canary, living or ended, compares with the version that the alias named."""
    with transaction() as session:
        found = session.get(Canary, canary_id)
        if found is None:
            raise problems.not_found("canary", canary_id)
        return reports.canary(session, found.id, _out(session, [found])[0])


def _active(session: Session, name: str, alias: str) -> Canary:
    found = canaries.active(session, name, alias)
    if found is None:
        raise problems.not_found("canary", f"{name}:{alias}")
    return found


def _out(session: Session, rows: list[Canary]) -> list[CanaryOut]:
    ids = {one for row in rows for one in (row.base_id, row.version_id)}
    versions = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(ids)))
    refs = {version.id: version.ref for version in versions}
    return [
        CanaryOut(
            id=row.id,
            model=row.model,
            alias=row.alias,
            incumbent=refs[row.base_id],
            version=refs[row.version_id],
            mode="share" if row.mode == "share" else "shadow",
            share=row.share,
            reason=row.reason,
            created_at=row.created_at,
            ended_at=row.ended_at,
            ended_reason=row.ended_reason,
        )
        for row in rows
    ]
