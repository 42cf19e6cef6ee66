"""Promotions: ask the gate, force it with a key, and read what it decided."""

from __future__ import annotations

from anyio import from_thread
from fastapi import APIRouter, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import aliases, promotions
from selftaught.contracts import Page, PromoteIn, PromotionOut
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion, Promotion
from selftaught.http import problem_docs
from selftaught.promotions import Asked
from services.api import problems, views
from services.api.access import Caller, unauthorised
from services.api.deps import Cursor, Limit, Name, Number, StorableBody
from services.api.idempotency import Once, keep
from services.api.judge import prepare

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "/{name}/versions/{number}/promote",
    responses=problem_docs(401, 403, 404) | problems.GATE_REFUSED,
    dependencies=[StorableBody, Once],
)
def promote_version(
    name: Name, number: Number, body: PromoteIn, request: Request, caller: Caller
) -> PromotionOut:
    """Move an alias to a version if every rule of the gate passes.

    The version is compared with the one that the alias names now, by the scores of a job that has
    scored both. 409 `gate_refused` has the failed rules, with their numbers, in `errors`. `force`
    promotes in spite of them: it needs a key with scope `promote` and a reason, and the record has
    both. Refused, passed and forced ones are all listed under `/promotions`. As with a `PUT` of an
    alias, the evaluators open the version first, and a move ends the alias's canary.
    """
    if body.force and caller.key_id is None:
        raise unauthorised("key_required", "a forced promotion needs a key: send it as Bearer")
    if body.prepare:
        prepare_first(request, name, number, body.alias)
    asked = Asked(body.reason or "manual", caller, body.force)
    return decide(name, number, body.alias, asked)


@router.get("/{name}/versions/{number}/promotions", responses=problem_docs(404))
def list_promotions(
    name: Name, number: Number, after: Cursor = None, limit: Limit = 20
) -> Page[PromotionOut]:
    """What the gate decided about a version, newest first: passed, refused and forced.

    Each decision has every rule's finding, the version it was compared with, and who asked.
    """
    with transaction() as session:
        version = aliases.get_version(session, name, number)
        query = select(Promotion).where(Promotion.version_id == version.id)
        if after is not None:
            query = query.where(Promotion.id < after)
        rows = session.scalars(query.order_by(Promotion.id.desc()).limit(limit + 1)).all()
        return Page(data=views.promotions(session, rows[:limit]), has_more=len(rows) > limit)


@router.get("/{name}/promotions", responses=problem_docs(404))
def list_promotions_of_model(
    name: Name, after: Cursor = None, limit: Limit = 20
) -> Page[PromotionOut]:
    """What the gate decided about all versions of a model, newest first.

    Each as under `/versions/{number}/promotions`.
    """
    query = (
        select(Promotion)
        .join(ModelVersion, ModelVersion.id == Promotion.version_id)
        .where(ModelVersion.model == name)
    )
    if after is not None:
        query = query.where(Promotion.id < after)
    with transaction() as session:
        need_model(session, name)
        rows = session.scalars(query.order_by(Promotion.id.desc()).limit(limit + 1)).all()
        return Page(data=views.promotions(session, rows[:limit]), has_more=len(rows) > limit)


def decide(
    name: str, number: int, alias: str, asked: Asked, expected_revision: int | None = None
) -> PromotionOut:
    """Ask the gate. Raises Refused (409) after its decision is recorded, if it is a refusal."""
    with transaction() as session:
        version = aliases.get_version(session, name, number)
        decision = promotions.promote(
            session, version, alias, asked, expected_revision=expected_revision
        )
        (out,) = views.promotions(session, [decision])
        if out.promoted:
            keep(session, out)
    if not out.promoted:
        raise problems.gate_refused(out)
    return out


def need_model(session: Session, name: str) -> None:
    """Raises Refused (404) for a name without a version."""
    found = session.scalar(select(ModelVersion.id).where(ModelVersion.model == name).limit(1))
    if found is None:
        raise problems.not_found("model", name)


def prepare_first(request: Request, name: str, number: int, alias: str) -> None:
    """Have evaluators open what the alias is to name, outside any transaction. Raises Refused."""
    aliases.check_name(alias)
    with transaction() as session:
        version = aliases.get_version(session, name, number)
        row = aliases.find(session, name, alias)
    if row is None or row.version_id != version.id:
        from_thread.run(prepare, request.app, version.id)
