"""What happens around every request, whatever answers it: its audit row, headers, fingerprint."""

from __future__ import annotations

import logging

from fastapi import Request
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selftaught import audit, keys, tenancy
from selftaught.database import transaction
from selftaught.http import request_id
from services.api.fingerprints import HEADER, Fingerprint

logger = logging.getLogger(__name__)

_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ASKS = frozenset(
    {
        "/judge",
        "/v1/judge",
        "/v1/score",
        "/v1/rank",
        "/v1/chat/completions",
        "/openai/v1/chat/completions",
    }
)
"""Routes that change nothing, though they are POST: they have no audit rows."""


async def begin(request: Request, caller: keys.Caller) -> None:
    """Add the request's audit row, if it has one, before anything else is done."""
    route: APIRoute = request.scope["route"]
    if request.method in _CHANGES and route.path_format not in ASKS:
        request.state.audit_id = await run_in_threadpool(_begin, request, caller, route.path_format)


def _begin(request: Request, caller: keys.Caller, route: str) -> str:
    client = None if request.client is None else request.client.host
    with tenancy.inside(None), transaction() as session:
        return audit.begin(
            session,
            caller,
            request.method,
            route,
            request.url.path,
            request_id(request),
            client,
        )


class Around:
    """Reads along (fingerprints), adds the headers that a dependency left in the request's state,
    and completes its audit row before the answer's first byte is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A server may begin a request inside the context of the one before on its connection.
        tenancy.enter(None)
        state, answered = scope["state"], False
        if HEADER in Headers(scope=scope):
            state["fingerprint"] = found = Fingerprint(scope)
            receive = found.listening(receive)

        async def send_completed(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                headers = MutableHeaders(scope=message)
                headers.update(state.get("headers", {}))
                await _complete(state, message["status"], headers.get("location"))
            await send(message)

        try:
            await self._app(scope, receive, send_completed)
        except Exception:
            if not answered:  # a crash; the 500 is made outside of here
                await _complete(state, 500, None)
            raise


async def _complete(state: dict[str, object], status: int, target: str | None) -> None:
    """A database that is away now leaves the row as of a gateway that died; the answer is sent."""
    row_id = state.get("audit_id")
    if not isinstance(row_id, str):
        return
    try:
        await run_in_threadpool(_completed, row_id, status, target)
    except SQLAlchemyError as error:
        logger.warning("audit row %s stays open (%d): %s", row_id, status, error)


def _completed(row_id: str, status: int, target: str | None) -> None:
    with tenancy.inside(None), transaction() as session:
        audit.complete(session, row_id, status, target)
