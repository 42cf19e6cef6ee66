"""Prompt templates: the shipped ones, and a user's own. A name never changes its content."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from selftaught.contracts import Page, TemplateOut
from selftaught.database import transaction
from selftaught.database.tables import StoredTemplate
from selftaught.http import Refused, field_errors, problem_docs
from selftaught.judging import Template, load_template, parse_template, template_names
from services.api import problems
from services.api.deps import Cursor, Limit, StorableBody
from services.api.idempotency import Once, keep

router = APIRouter(prefix="/v1/templates", tags=["templates"])


TemplateName = Annotated[str, Path(description="A template's name.", examples=["mine"])]
_BODIES = [
    {
        "name": "mine",
        "kind": "judge",
        "user": "{instruction}\n\nA: {response_a}\n\nB: {response_b}\n\n[[A]] or [[B]]?",
        "verdicts": {"A": "[[A]]", "B": "[[B]]"},
    },
    {
        "name": "my-score",
        "kind": "score",
        "user": "{instruction}\n\n{response}\n\nFrom 0 to 10, how good is it?",
    },
]


@router.post("", status_code=201, responses=problem_docs(409), dependencies=[StorableBody, Once])
def create_template(
    body: Annotated[dict[str, Any], Body(examples=_BODIES)], response: Response
) -> TemplateOut:
    """Upload a template.

    It has a `name`, a `kind` (judge, modify, score ..), `user` with the placeholders of its kind,
    and what else the kind needs; GET shows the shipped ones. Uploading the same
    content again changes nothing; other content under a known name is refused.
    """
    try:
        template = parse_template(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        errors = field_errors(found, skip=int(bool(found[0]["loc"])))  # without the kind
        detail = f"{errors[0]['field']}: {errors[0]['message']}"
        param = errors[0]["field"]
        raise Refused(422, "invalid_template", detail, param=param, errors=errors) from error
    out = _out(template)
    location = f"/v1/templates/{template.name}"
    shipped = template.name in template_names()
    known = load_template(template.name).sha256 if shipped else None
    with transaction() as session:
        if (known or _stored(session, template)) != template.sha256:
            detail = f"there is another template {template.name!r}; choose a new name"
            raise Refused(409, "template_exists", detail, param="name")
        keep(session, out, location)
    response.headers["Location"] = location
    return out


@router.get("", responses=problem_docs())
def list_templates(after: Cursor = None, limit: Limit = 20) -> Page[TemplateOut]:
    """Templates by name; `after` is a name."""
    name = StoredTemplate.name.collate("C")  # as Python sorts
    query = select(StoredTemplate).order_by(name).limit(limit + 1)
    if after is not None:
        query = query.where(name > after)
    with transaction() as session:
        stored = session.scalars(query).all()
    shipped = [load_template(one) for one in template_names() if after is None or one > after]
    found = [*shipped, *(parse_template(row.content) for row in stored)]
    rows = sorted(found, key=lambda one: one.name)
    return Page(data=[_out(one) for one in rows[:limit]], has_more=len(rows) > limit)


@router.get("/{name}", responses=problem_docs(404))
def get_template(name: TemplateName) -> TemplateOut:
    """One template with all of its content."""
    if name in template_names():
        return _out(load_template(name))
    with transaction() as session:
        row = session.scalars(select(StoredTemplate).filter_by(name=name)).one_or_none()
        if row is None:
            raise problems.not_found("template", name)
        return _out(parse_template(row.content))


def _stored(session: Session, template: Template) -> str:
    """The hash of what has this template's name, which is this one if nothing had it."""
    row = {
        "name": template.name,
        "kind": template.kind,
        "sha256": template.sha256,
        "content": template.model_dump(mode="json"),
    }
    session.execute(insert(StoredTemplate).values(row).on_conflict_do_nothing())
    return session.scalars(select(StoredTemplate.sha256).filter_by(name=template.name)).one()


def _out(template: Template) -> TemplateOut:
    return TemplateOut(
        name=template.name,
        kind=template.kind,
        sha256=template.sha256,
        shipped=template.name in template_names(),
        content=template.model_dump(mode="json", exclude_none=True),
    )
