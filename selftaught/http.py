"""What every HTTP service shares: RFC 9457 problems, request ids, body limits, request metrics.

The one module of this package that knows a web framework; only services import it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selftaught import aliases, logs, openapi, sse, telemetry
from selftaught.contracts import Problem
from selftaught.ids import new_id
from selftaught.openapi import PROBLEM_TYPE
from selftaught.settings import get_settings
from selftaught.store import StoreError, StoreUnavailable

logger = logging.getLogger(__name__)
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for

MAX_BODY_BYTES = 4 * 1024 * 1024
SLOWEST = 1024
"""Bytes/s that a body must reach, once it had some seconds to begin."""
_MAX_DETAIL = 2000  # a detail may quote what was sent
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ALIAS_STATUS: dict[type[Exception], tuple[int, str]] = {
    aliases.UnknownModel: (404, "unknown_model"),
    aliases.NothingPromoted: (409, "no_model"),
    aliases.AmbiguousModel: (422, "ambiguous_model"),
    aliases.BadAliasName: (422, "invalid_alias"),
    aliases.RevisionMismatch: (412, "revision_mismatch"),
    aliases.NothingToRollBackTo: (409, "nothing_to_roll_back_to"),
}
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",  # but where a route says otherwise
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""On every answer, unless it says otherwise. What was uploaded is never a page, and no page of
another site shows ours."""
_SHOWN_HEADERS = (
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
)
"""What a page of another origin may read beside the body."""
_ASKED = ("Idempotency-Key", "Last-Event-ID", "X-Request-ID")
_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked again and again by machines."""
_CODES = {404: "not_found", 405: "method_not_allowed"}


Result = TypeVar("Result")


class DatabaseLost(Exception):
    """Postgres does not answer, told by code that asks it without SQLAlchemy."""


class Refused(HTTPException):
    """A request that is answered with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        errors: Sequence[dict[str, Any]] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.code, self.param, self.errors = code, param, list(errors)


def problem(
    status: int,
    code: str,
    detail: str | None,
    request_id: str | None,
    *,
    param: str | None = None,
    errors: Sequence[dict[str, Any]] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem as a response. Written as ASCII, so that no input can break its encoding."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail and detail[:_MAX_DETAIL],
        code=code,
        param=param,
        request_id=request_id,
        fault=None,
        errors=list(errors),
    )
    content = json.dumps(body.model_dump(mode="python", exclude_none=True))
    return Response(content, status, headers, media_type=PROBLEM_TYPE)


def problem_docs(*statuses: int, database: bool = True) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for these statuses, and 503 for a route that asks the `database`.

    What can happen anywhere (400, 413, 422, 500) needs no mention: see :mod:`selftaught.openapi`.
    """
    wanted = {503, *statuses} if database else {*statuses}
    return {status: openapi.problem_response(status) for status in sorted(wanted)}


def field_errors(errors: Sequence[Any], skip: int = 0) -> list[dict[str, Any]]:
    """Pydantic's errors as `{field, message, type}`, with the path written with dots."""
    return [
        {
            "field": ".".join(str(part) for part in error["loc"][skip:]),
            "message": error["msg"].removeprefix("Value error, "),
            "type": error["type"],
        }
        for error in errors
    ]


def install(
    app: FastAPI,
    registry: CollectorRegistry,
    streaming: frozenset[str],
    origins: Sequence[str] = (),
) -> None:
    """Give an app problems, request ids, request metrics, a body limit, headers that keep browsers
    from guessing, and a complete OpenAPI document.

    Paths in `streaming` count their own bytes. Pages of `origins` may call the app, with a key that
    they have; cookies are nothing here, so no credentials of the browser's own. `/metrics` is the
    caller's to route, with :func:`exposition`.
    """
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(aliases.AliasError, _on_alias_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    for lost in (OperationalError, InterfaceError, PoolTimeout, DatabaseLost):
        app.add_exception_handler(lost, _on_database_lost)
    app.add_exception_handler(StoreError, _on_store_error)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=sorted(_METHODS - {"HEAD", "OPTIONS"}),
            allow_headers=["Authorization", "Content-Type", "If-Match", "If-None-Match", *_ASKED],
            expose_headers=_SHOWN_HEADERS,
        )
    app.add_middleware(RequestMiddleware, registry=registry, streaming=streaming)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    written = app.openapi
    app.openapi = cache(lambda: openapi.completed(written()))  # type: ignore[method-assign]


METRICS_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus's text format.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": '# TYPE selftaught_jobs gauge\nselftaught_jobs{state="running"} 1.0\n',
            }
        },
    }
}
"""OpenAPI `responses` of a route that answers with an :func:`exposition`."""


def exposition(registry: CollectorRegistry) -> Response:
    """The registry in Prometheus's text format."""
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")


def request_id(request: Request) -> str | None:
    """The id that :class:`RequestMiddleware` gave this request."""
    found: str | None = getattr(request.state, "request_id", None)
    return found


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives; when the client leaves first, it is cancelled and ClientDisconnect raised.

    For routes whose body has been read.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


class EventStream(StreamingResponse):
    """Server-Sent Events, each sent as it comes. When they end, or the client leaves, `ended` is
    called; also if nothing could be sent."""

    media_type = sse.MEDIA_TYPE

    def __init__(self, events: AsyncIterator[bytes], ended: Callable[[], object]) -> None:
        unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, headers=unbuffered)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(Request(scope, receive), self.stream_response(send))
        except ClientDisconnect:
            logger.info("client left during %s %s", scope["method"], scope["path"])
        finally:
            self._ended()


async def as_problem(request: Request, error: Exception) -> Response:
    """The problem that this app answers to an error, for those that come too late for a status."""
    handlers = request.app.exception_handlers
    for kind in type(error).__mro__:
        if kind in handlers:
            found: Response = await handlers[kind](request, error)
            return found
    rid = request_id(request)
    logger.error("request %s failed", rid, exc_info=error)
    return _crashed(rid)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    rid = request_id(request)
    if isinstance(error, Refused):
        return problem(
            error.status_code,
            error.code,
            error.detail,
            rid,
            param=error.param,
            errors=error.errors,
            headers=headers,
        )
    if error.status_code == 400:  # FastAPI's own, of a body that it cannot even decode
        return problem(400, "invalid_json", "the body is not valid JSON", rid)
    code = _CODES.get(error.status_code, "http_error")
    detail = error.detail
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}"
    if error.status_code == 405:
        detail = f"{request.method} is not possible here"
        headers = {"Allow": ", ".join(_allowed(request))}
    return problem(error.status_code, code, detail, rid, headers=headers)


def _allowed(request: Request) -> list[str]:
    """Methods that the address takes, of all its routes together: a router knows of one only."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in sorted(_METHODS) if taken(method)]


async def _on_alias_error(request: Request, error: Exception) -> Response:
    status, code = _ALIAS_STATUS[type(error)]
    headers = None
    if isinstance(error, aliases.RevisionMismatch):
        headers = {"ETag": f'"{error.actual}"'}
    return problem(status, code, str(error), request_id(request), headers=headers)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    rid = request_id(request)
    if any(item["type"] == "json_invalid" for item in found):
        return problem(400, "invalid_json", "the body is not valid JSON", rid)
    errors = field_errors(found, skip=1)
    for item, raw in zip(errors, found, strict=True):
        item["field"] = item["field"] or str(raw["loc"][0])
        if raw["loc"] == ("body",) and not _is_json(request):
            item["message"] = "send JSON with the header Content-Type: application/json"
    detail = f"{errors[0]['field']}: {errors[0]['message']}"
    return problem(422, "invalid_request", detail, rid, param=errors[0]["field"], errors=errors)


def _is_json(request: Request) -> bool:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media == "application/json" or media.endswith("+json")


async def _on_disconnect(request: Request, error: Exception) -> Response:
    logger.info("client left during %s %s", request.method, request.url.path)
    return problem(400, "client_disconnected", "the client left", request_id(request))


async def _on_database_lost(request: Request, error: Exception) -> Response:
    rid = request_id(request)
    logger.error("request %s: no database: %s", rid, error)
    detail = "the database cannot be reached; try again soon"
    return problem(503, "database_unavailable", detail, rid, headers={"Retry-After": "5"})


async def _on_store_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)
    rid = request_id(request)
    logger.error("request %s: %s: %s", rid, error.title, error)
    if isinstance(error, StoreUnavailable):
        detail = "the artifact store cannot be reached; try again soon"
        return problem(503, error.code, detail, rid, headers={"Retry-After": "5"})
    return problem(500, error.code, "a file that this needs is not in the store as it was", rid)


class RequestMiddleware:
    """Outermost: names the request, bounds its body, measures it, and turns a crash into a 500 (and
    the end of the server's patience with it, when it stops, into a 503)."""

    def __init__(
        self, app: ASGIApp, registry: CollectorRegistry, streaming: frozenset[str]
    ) -> None:
        self._app, self._streaming = app, streaming
        self._count = Counter(
            "selftaught_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "selftaught_http_request_seconds",
            "Time until a response was complete.",
            ["method", "route"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        given = asked.get("x-request-id", "")
        rid = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = rid
        with logs.bound(request_id=rid):
            if scope["path"] in _UNTRACED:
                await self._answer(scope, receive, send, rid)
                return
            method = _method(scope)
            parent = asked.get(telemetry.HEADER)
            with telemetry.span(method, "server", parent, {"http.request.method": method}) as span:
                status = await self._answer(scope, receive, send, rid)
                route = _route(scope)
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                span.set_attribute("selftaught.request_id", rid)
                if status >= 500:
                    telemetry.failed(span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, rid: str) -> int:
        """Returns the status of the answer."""
        started, status = time.perf_counter(), 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = rid
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        timely = _timely(receive)
        limited = timely if scope["path"] in self._streaming else _limit(scope, timely)
        try:
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                detail = "the address contains a NUL character"
                response = problem(400, "nul_character", detail, rid)
                await response(scope, receive, send_named)
            else:
                await self._app(scope, limited, send_named)
        except asyncio.CancelledError:
            # The server is told to stop, and has waited for this request as long as it does.
            if not status:
                detail = "this server is being stopped; ask again"
                again = {"Retry-After": "1"}
                stopping = problem(503, "shutting_down", detail, rid, headers=again)
                await stopping(scope, receive, send_named)
            raise
        except Exception:
            logger.exception("request %s failed: %s %s", rid, scope["method"], scope["path"])
            if status:  # too late for another answer: let the server cut the connection
                raise
            await _crashed(rid)(scope, receive, send_named)
        finally:
            method, route = _method(scope), _route(scope)
            self._count.labels(method, route, str(status)).inc()
            self._seconds.labels(method, route).observe(time.perf_counter() - started)
        return status


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "OTHER"


def _route(scope: Scope) -> str:
    """The path of the route that answered, without what stands for its parameters."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _without_query(record: logging.LogRecord) -> bool:
    """Of uvicorn's access log: a query may hold what nobody meant to be kept."""
    if isinstance(record.args, tuple) and len(record.args) == 5:  # client, method, path, ..
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def _crashed(rid: str | None) -> Response:
    detail = "an unexpected error; it is logged under this request id"
    return problem(500, "internal_error", detail, rid)


def _timely(receive: Receive) -> Receive:
    """`receive`, refusing bodies that stop coming, or come a few bytes at a time.

    What comes after the body, a client that leaves, may be waited for as long as one likes.
    """
    idle = get_settings().body_idle_seconds
    received, waited, ended = 0, 0.0, False

    async def timely() -> Message:
        nonlocal received, waited, ended
        if ended:
            return await receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(idle, idle + received / SLOWEST - waited)):
                message = await receive()
        except TimeoutError as error:
            detail = f"the body paused for {idle:g} s, or comes at less than {SLOWEST} bytes/s"
            raise Refused(408, "body_timeout", detail, headers={"Connection": "close"}) from error
        waited += time.monotonic() - began
        received += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        return message

    return timely


def _limit(scope: Scope, receive: Receive) -> Receive:
    """`receive`, refusing bodies over MAX_BODY_BYTES, declared or counted."""
    seen = 0
    declared = Headers(scope=scope).get("content-length", "0")

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES or (declared.isdigit() and int(declared) > MAX_BODY_BYTES):
            raise too_large(MAX_BODY_BYTES)
        return message

    return limited


def too_large(limit: int) -> Refused:
    """413; the rest of the body is not read, so the connection ends here."""
    detail = f"the body is larger than {limit} bytes"
    return Refused(413, "body_too_large", detail, headers={"Connection": "close"})
