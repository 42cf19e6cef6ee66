"""The audit log, to be read. It is written by services/api/around.py."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select

from selftaught import tenancy
from selftaught.contracts import AuditOut, Page
from selftaught.database import transaction
from selftaught.database.tables import Audit
from selftaught.http import Refused, problem_docs
from services.api.access import Caller
from services.api.deps import Cursor, Limit, Time

router = APIRouter(prefix="/v1/audit", tags=["access"])

Text = Annotated[str | None, Query(max_length=200)]


@router.get("", responses=problem_docs())
def list_audit(
    caller: Caller,
    after: Cursor = None,
    limit: Limit = 20,
    key: Annotated[Text, Query(description="Only by this key: its id or name.")] = None,
    method: Annotated[Text, Query(description="Only of this method.")] = None,
    route: Annotated[Text, Query(description="Only of this route, such as /v1/jobs.")] = None,
    request_id: Annotated[Text, Query(description="Only of this request.")] = None,
    since: Annotated[Time | None, Query(description="Not before.")] = None,
    until: Annotated[Time | None, Query(description="Before.")] = None,
    project: Annotated[
        Text, Query(description="The operator's: of this project, or `*` for all.")
    ] = None,
) -> Page[AuditOut]:
    """Who did what, newest first: every request that changes something, refused ones too.

    Questions to the judge are none, and neither are requests without a good key or beyond a rate.
    """
    if project is not None and caller.project != tenancy.DEFAULT:
        raise Refused(403, "operator_only", "`project` is for keys of the operator's project")
    query = select(Audit).order_by(Audit.id.desc()).limit(limit + 1)
    if project != "*":
        query = query.where(Audit.project_id == (project or caller.project))
    if key is not None:
        query = query.where((Audit.key_id == key) | (Audit.key_name == key))
    for column, value in (
        (Audit.method, method),
        (Audit.route, route),
        (Audit.request_id, request_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(Audit.at >= since)
    if until is not None:
        query = query.where(Audit.at < until)
    if after is not None:
        query = query.where(Audit.id < after)
    confined = caller.project if project is None else None
    with tenancy.inside(confined), transaction() as session:
        rows = session.scalars(query).all()
        return Page(data=[_out(row) for row in rows[:limit]], has_more=len(rows) > limit)


def _out(row: Audit) -> AuditOut:
    same = AuditOut.model_fields.keys() - {"project"}
    return AuditOut(project=row.project_id, **{name: getattr(row, name) for name in same})
