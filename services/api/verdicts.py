"""The log of verdicts: what was answered, and where the version that answered came from."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from sqlalchemy import select

from selftaught.contracts import Latency, OrderVerdict, Page, VerdictOut, VerdictTrace
from selftaught.database import transaction
from selftaught.database.tables import LoggedVerdict, ModelVersion
from selftaught.http import Refused, problem_docs
from services.api import views
from services.api.deps import LARGEST, Cursor, Limit, Time

VerdictId = Annotated[
    str, Path(description="An answer's id.", examples=["vdt_019ac5a1c3d08f2a5b7c9d0e"])
]

router = APIRouter(prefix="/v1/verdicts", tags=["verdicts"])


@router.get("", responses=problem_docs())
def list_verdicts(
    model: Annotated[str | None, Query(description="Of versions of this model.")] = None,
    version: Annotated[int | None, Query(ge=0, le=LARGEST, description="By number.")] = None,
    verdict: Annotated[
        Literal["A", "B", "tie", "unparsable"] | None, Query(description="Only such.")
    ] = None,
    content_sha256: Annotated[str | None, Query(description="Of one question.")] = None,
    request_id: Annotated[str | None, Query(description="As the answer's X-Request-Id.")] = None,
    since: Annotated[Time | None, Query(alias="from", description="Not before.")] = None,
    until: Annotated[Time | None, Query(alias="to", description="Before this.")] = None,
    after: Cursor = None,
    limit: Limit = 20,
) -> Page[VerdictOut]:
    """Logged answers of /judge, newest first; none where SELFTAUGHT_VERDICT_LOG is off."""
    query = select(LoggedVerdict, ModelVersion).join(
        ModelVersion, ModelVersion.id == LoggedVerdict.version_id
    )
    for column, value in (
        (ModelVersion.model, model),
        (ModelVersion.number, version),
        (LoggedVerdict.verdict, verdict),
        (LoggedVerdict.content_sha256, content_sha256),
        (LoggedVerdict.request_id, request_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(LoggedVerdict.created_at >= since)
    if until is not None:
        query = query.where(LoggedVerdict.created_at < until)
    if after is not None:
        query = query.where(LoggedVerdict.id < after)
    with transaction() as session:
        rows = session.execute(query.order_by(LoggedVerdict.id.desc()).limit(limit + 1)).all()
    found = [_out(row, made_by) for row, made_by in rows[:limit]]
    return Page(data=found, has_more=len(rows) > limit)


@router.get("/{verdict_id}", responses=problem_docs(404))
def get_verdict(verdict_id: VerdictId) -> VerdictTrace:
    """One logged answer, with the version that gave it, its lineage and the job that made it."""
    with transaction() as session:
        row = session.get(LoggedVerdict, verdict_id)
        if row is None:
            detail = (
                f"there is no verdict {verdict_id!r} in the log; answers are kept only while "
                "SELFTAUGHT_VERDICT_LOG, which is off by default, is hashes or texts where the "
                "evaluators run (docs/traffic.md)"
            )
            raise Refused(404, "verdict_not_found", detail)
        version = session.get_one(ModelVersion, row.version_id)
        (made_by,) = views.versions(session, [version])
        return VerdictTrace(**dict(_out(row, version)), version=made_by)


def _out(row: LoggedVerdict, version: ModelVersion) -> VerdictOut:
    return VerdictOut.model_validate(
        {
            "id": row.id,
            "created_at": row.created_at,
            "model": version.ref,
            "job": version.job_id,
            "template": row.template,
            "template_sha256": row.template_sha256,
            "alias": row.alias,
            "canary": row.canary_id,
            "verdict": row.verdict,
            "confidence": row.confidence,
            "orders_agree": row.orders_agree,
            "orders": [OrderVerdict(**order) for order in row.orders],
            "votes": row.votes,
            "parse_failures": row.parse_failures,
            "prompt_tokens": row.prompt_tokens,
            "completion_tokens": row.completion_tokens,
            "cached": row.cached,
            "latency": Latency(
                total=row.total_seconds, queue=row.queue_seconds, engine=row.engine_seconds
            ),
            "content_sha256": row.content_sha256,
            "texts": row.texts,
            "request_id": row.request_id,
        }
    )
