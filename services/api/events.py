"""A job's events: pages of rows, or the same rows as a stream that can be resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response
from sqlalchemy import select
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from selftaught import sse
from selftaught.contracts import TERMINAL, EventOut, Page
from selftaught.database import transaction
from selftaught.database.tables import Event
from selftaught.http import Refused, problem_docs
from services.api import jobs, limits, views
from services.api.access import still_good
from services.api.deps import JobId, Limit, Seq

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15
MOST_STREAMS = 100
"""Of a project in one gateway: each stream asks Postgres every POLL_SECONDS."""
_EXAMPLE = """\
id: 42
event: version.published
data: {"seq": 42, "type": "version.published", "data": {"version": "tour:1"}, \
"created_at": "2026-11-27T09:04:10Z"}

"""
_DOCS: dict[int | str, dict[str, Any]] = problem_docs(404) | {
    200: {
        "model": Page[EventOut],
        "description": "A page of events, or all of them as they happen.",
        "content": {sse.MEDIA_TYPE: {"schema": sse.SCHEMA, "example": _EXAMPLE}},
    },
    204: {"description": "Nothing left to stream."},
}


async def _counted(request: Request) -> AsyncIterator[None]:
    """Refuse (429) a stream of a project that has MOST_STREAMS; any other counts till it ends."""
    if not _wants_stream(request):
        yield
        return
    streams: Counter[str] = request.app.state.streams
    project = request.state.caller.project
    if streams[project] >= MOST_STREAMS:
        detail = f"project {project!r} has {MOST_STREAMS} streams open in this gateway"
        raise limits.too_many("too_many_streams", detail, KEEP_ALIVE_SECONDS)
    streams[project] += 1
    try:
        yield  # until the answer has been sent
    finally:
        streams[project] -= 1
        if not streams[project]:
            del streams[project]


def _wants_stream(request: Request) -> bool:
    return sse.MEDIA_TYPE in request.headers.get("accept", "")


@router.get(
    "/{job_id}/events",
    response_model=None,
    responses=_DOCS,
    dependencies=[Depends(_counted)],
)
def list_events(
    request: Request,
    job_id: JobId,
    after: Seq = 0,
    limit: Limit = 100,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**63 - 1, description="Resume a stream after this event.")
    ] = None,
) -> Page[EventOut] | Response:
    """Events of a job in order; a stream with `Accept: text/event-stream`.

    A stream ends by itself after the job's last event. `Last-Event-ID` goes before `after`; behind
    the last event of an ended job there is nothing to stream: 204, on which browsers stop asking.
    A project may have 100 streams open in a gateway; one more is 429 `too_many_streams`.
    """
    streams = _wants_stream(request)
    start = last_event_id if streams and last_event_id is not None else after
    page, ended = read(job_id, start, limit)
    if not streams:
        return page
    if ended and not page.data:
        return Response(status_code=204)
    return EventSourceResponse(
        stream(request, job_id, start),
        ping=KEEP_ALIVE_SECONDS,
        headers={"Cache-Control": "no-store"},
    )


async def stream(request: Request, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Every event after `after`, as it is written, until the job has ended, the key is good no
    longer, or the job is deleted: who comes back then gets a 401 or a 404."""
    while await still_good(request):
        try:
            page, ended = await run_in_threadpool(read, job_id, after, 100)
        except Refused:
            return
        for event in page.data:
            after = event.seq
            yield ServerSentEvent(data=event.model_dump_json(), id=str(event.seq), event=event.type)
        if page.has_more:
            continue
        if ended:
            return
        await anyio.sleep(POLL_SECONDS)


def read(job_id: str, after: int, limit: int) -> tuple[Page[EventOut], bool]:
    """A page of events, and whether the job had ended before it was read (so none will follow)."""
    query = (
        select(Event)
        .where(Event.job_id == job_id, Event.seq > after)
        .order_by(Event.seq)
        .limit(limit + 1)
    )
    with transaction() as session:
        ended = jobs.find(session, job_id).state in TERMINAL
        rows = session.scalars(query).all()
    data = [views.event(row) for row in rows[:limit]]
    return Page(data=data, has_more=len(rows) > limit), ended
