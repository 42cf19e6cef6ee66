"""Models: immutable versions, and the aliases that point at them."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import aliases
from selftaught.contracts import (
    AliasIn,
    AliasOut,
    JobOut,
    ModelOut,
    Page,
    RegistrationIn,
    State,
    VersionOut,
)
from selftaught.database import transaction
from selftaught.database.tables import Alias, Job, ModelVersion
from selftaught.http import Refused, problem_docs
from selftaught.ids import new_id
from selftaught.keeping import erase
from selftaught.promotions import Asked
from selftaught.registry import UnknownName, base_model_path, resolve_recipe
from selftaught.work import pipeline
from services.api import problems, promotions, views
from services.api.access import Caller
from services.api.deps import LARGEST, Cursor, Limit, Name, Number, StorableBody
from services.api.idempotency import Once, keep
from services.api.limits import Work

router = APIRouter(prefix="/v1/models", tags=["models"])

AliasName = Annotated[str, Path(description="An alias's name.", examples=["latest"])]
_REVISION = r'(?:W/)?"(\d{1,9})"|(\d{1,9})'
IfMatch = Annotated[
    str | None,
    Header(
        description='The revision you saw, as in its ETag: "3".',
        json_schema_extra={"pattern": f"^({_REVISION})$"},
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(description="`*`: only if there is none yet.", json_schema_extra={"pattern": r"^\*$"}),
]


@router.post(
    "", status_code=202, responses=problem_docs(409), dependencies=[StorableBody, Once, Work]
)
def register_model(body: RegistrationIn, response: Response) -> JobOut:
    """Make a base model, as it is, a version; `latest` too if the model has none.

    A job checks and hashes the weights. Registering the same again gives the same version.
    """
    name = body.name or body.base_model.lower()
    raw = {
        "name": name,
        "base_model": body.base_model,
        "engine": body.engine.model_dump(),
        "inference": body.inference,
        "judge": {"template": body.template, "sampling": body.sampling.model_dump()},
        "validate": {"max_tokens": body.max_tokens},
    }
    try:
        base_model_path(body.base_model)  # before its name is that of the version, too
        recipe = resolve_recipe(raw, {})
    except UnknownName as error:
        raise problems.unknown_name(error, error.what.replace(" ", "_")) from error
    except ValidationError as error:
        raise problems.invalid_recipe(error, {}) from error
    with transaction() as session:
        job = Job(
            id=new_id("job"),
            kind="registration",
            state=State.PENDING,
            model=name,
            recipe=recipe.model_dump(mode="json", by_alias=True),
        )
        session.add(job)
        pipeline.start_job(session, job)
        session.flush()
        session.refresh(job)
        (out,) = views.jobs(session, [job])
        location = response.headers["Location"] = f"/v1/jobs/{out.id}"
        keep(session, out, location)
    return out


@router.get("", responses=problem_docs())
def list_models(after: Cursor = None, limit: Limit = 20) -> Page[ModelOut]:
    """Models by name; `after` is a name."""
    with transaction() as session:
        rows = views.models(session, after, limit + 1)
    return Page(data=rows[:limit], has_more=len(rows) > limit)


@router.get("/{name}/versions", responses=problem_docs(404))
def list_versions(
    name: Name,
    after: Annotated[int | None, Query(ge=0, le=LARGEST, description="A version's number.")] = None,
    limit: Limit = 20,
) -> Page[VersionOut]:
    """Versions of a model, newest first."""
    query = select(ModelVersion).where(ModelVersion.model == name)
    if after is not None:
        query = query.where(ModelVersion.number < after)
    with transaction() as session:
        promotions.need_model(session, name)
        rows = session.scalars(query.order_by(ModelVersion.number.desc()).limit(limit + 1)).all()
        return Page(data=views.versions(session, rows[:limit]), has_more=len(rows) > limit)


@router.get("/{name}/versions/{number}", responses=problem_docs(404))
def get_version(name: Name, number: Number) -> VersionOut:
    """One version, with where it came from."""
    with transaction() as session:
        return views.versions(session, [aliases.get_version(session, name, number)])[0]


@router.delete("/{name}/versions/{number}", status_code=204, responses=problem_docs(404, 409))
def delete_version(name: Name, number: Number) -> None:
    """Delete a version: its weights and everything about it. Its number is not given again.

    409 `version_in_use` while an alias names it, a canary tries it or is compared with it, a
    running job needs it, or another version was trained from it. Aliases that once named it can no
    longer be rolled back to it.
    """
    try:
        with transaction() as session:
            gone = erase.version(session, name, number)
    except erase.InUse as error:
        raise Refused(409, "version_in_use", str(error)) from error
    erase.remove(gone)


@router.get("/{name}/aliases", responses=problem_docs(404))
def list_aliases(name: Name) -> Page[AliasOut]:
    """Every alias of a model, with its history."""
    with transaction() as session:
        promotions.need_model(session, name)
        rows = session.scalars(select(Alias).where(Alias.model == name).order_by(Alias.alias)).all()
        return Page(data=[views.alias_out(session, row) for row in rows], has_more=False)


@router.get("/{name}/aliases/{alias}", responses=problem_docs(404))
def get_alias(name: Name, alias: AliasName, response: Response) -> AliasOut:
    """One alias; its revision is the ETag."""
    with transaction() as session:
        row = aliases.find(session, name, alias)
        if row is None:
            raise problems.not_found("alias", f"{name}:{alias}")
        return _answer(session, row, response)


@router.put(
    "/{name}/aliases/{alias}",
    responses=problem_docs(401, 404, 412) | problems.GATE_REFUSED,
    dependencies=[StorableBody],
)
def put_alias(
    name: Name,
    alias: AliasName,
    body: AliasIn,
    request: Request,
    response: Response,
    caller: Caller,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> AliasOut:
    """Point an alias at a version. `/judge` follows at once.

    The evaluators open the version first, so that no call waits for it; one that cannot be opened
    is refused with 409, unless `prepare` is false. A move ends the alias's canary.
    `latest` moves only if the gate lets it (409 `gate_refused`, as of `/promote`); every other
    alias goes where it is put.
    """
    expected = _revision(if_match)
    if if_none_match is not None:
        if if_none_match.strip() != "*" or expected is not None:
            detail = "If-None-Match can only be *, and not beside If-Match"
            raise Refused(422, "invalid_request", detail, param="If-None-Match")
        expected = 0
    if body.prepare:
        promotions.prepare_first(request, name, body.version, alias)
    if alias == aliases.LATEST:
        asked = Asked(body.reason, caller)
        promotions.decide(name, body.version, alias, asked, expected)
        return get_alias(name, alias, response)
    with transaction() as session:
        by = caller.key_name
        row = aliases.move(session, name, alias, body.version, body.reason, expected, by)
        return _answer(session, row, response)


@router.post(
    "/{name}/aliases/{alias}/rollback",
    responses=problem_docs(404, 409, 412),
    dependencies=[Once],
)
def roll_back_alias(
    name: Name,
    alias: AliasName,
    response: Response,
    caller: Caller,
    if_match: IfMatch = None,
) -> AliasOut:
    """Point an alias back at the version before its present one."""
    expected = _revision(if_match)
    with transaction() as session:
        row = aliases.rollback(session, name, alias, expected_revision=expected, by=caller.key_name)
        out = _answer(session, row, response)
        keep(session, out)
    return out


def _answer(session: Session, row: Alias, response: Response) -> AliasOut:
    response.headers["ETag"] = f'"{row.revision}"'
    return views.alias_out(session, row)


def _revision(if_match: str | None) -> int | None:
    """The revision in an If-Match header; None without one."""
    if if_match is None:
        return None
    match = re.fullmatch(_REVISION, if_match.strip())
    if match is None or not (revision := int(match[1] or match[2])):
        detail = 'If-Match must be one revision as in the ETag, like "3"'
        raise Refused(422, "invalid_request", detail, param="If-Match")
    return revision
