"""POST /judge, /v1/score and /v1/rank: passed through to an evaluator, which holds the models.

Of several replicas the one with the fewest calls is asked. A judgment changes nothing, so a call
whose replica died is asked of the next one; a streamed one only as long as nothing has come.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import aiohttp
import orjson
from fastapi import APIRouter, FastAPI, Header, Request, Response
from pydantic import BaseModel

from selftaught import sse, telemetry, tenancy
from selftaught.contracts import (
    Asked,
    JudgeIn,
    JudgeOut,
    RankIn,
    Ranking,
    ResponseScore,
    ScoreIn,
)
from selftaught.http import (
    EventStream,
    Refused,
    problem,
    problem_docs,
    request_id,
    while_connected,
)
from services.api.limits import Call

logger = logging.getLogger(__name__)
router = APIRouter(tags=["judge"])

LOST_SECONDS = 2.0
"""A replica that could not be reached is asked last for so long."""
PATIENCE = 5.0
"""Seconds that a call waits for a replica to come back, if none can be reached."""
MOST_DEATHS = 3
"""Replicas that may be lost with a call before it is given up: perhaps it is what kills them."""
PREPARE_SECONDS = 30.0
"""So long an evaluator may take to open a version before the move goes on without it."""
SPARE = 10.0
"""Seconds beyond a call's own timeout, which the evaluator keeps."""
_DOCS = problem_docs(404, 409, 429, 502, 503, 504)
_EXAMPLE = """\
event: start
data: {"model": "judge:3", "template": "mt-bench", "template_sha256": "5d0e..", "orders": ["AB"]}

event: delta
data: {"order": "AB", "text": "27 is three times nine"}

event: delta
data: {"order": "AB", "text": ", so it is no prime.\\n[[A]]"}

event: verdict
data: {"verdict": "A", "confidence": 1.0, "orders_agree": null, ..}

"""
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {sse.MEDIA_TYPE: {"schema": sse.SCHEMA, "example": _EXAMPLE}}}
}
Named = Annotated[str | None, Header(description="The model, where the body names none.")]
_KEPT = ("content-type", "retry-after")


@dataclass(frozen=True)
class Ending:
    """How the events begin that end a stream, and what ends it instead if the evaluator is lost."""

    events: tuple[bytes, ...]
    lost: Callable[[dict[str, Any]], bytes]


JUDGED = Ending((b"event: verdict\n", b"event: error\n"), partial(sse.event, "error"))


class Unreachable(Exception):
    """No replica answers."""


class Replica:
    """One evaluator, as this gateway sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls = 0
        self.lost_until = 0.0


class Evaluators:
    """The replicas behind `urls`."""

    def __init__(self, urls: Sequence[str], session: aiohttp.ClientSession) -> None:
        self._replicas = [Replica(url.rstrip("/")) for url in urls]
        self._session = session

    async def post(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
        ending: Ending = JUDGED,
    ) -> Response:
        """An evaluator's answer, whose events, if it is a stream, are passed on as they come.

        Raises Unreachable, and TimeoutError after `timeout` seconds.
        """
        began, deaths = time.monotonic(), 0
        while True:
            left = timeout - (time.monotonic() - began)
            if left <= 0:
                raise TimeoutError
            replica = self._best()
            replica.calls += 1
            try:
                answer = await self._session.post(
                    replica.url + path,
                    data=body,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=left, sock_connect=PATIENCE),
                    allow_redirects=False,
                )
                if answer.content_type == sse.MEDIA_TYPE:
                    return _passed_on(answer, replica, headers["x-request-id"], ending)
                async with answer:
                    kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
                    return Response(await answer.read(), answer.status, kept)
            except aiohttp.ConnectionTimeoutError as error:
                problem: Exception = error
            except TimeoutError:
                raise
            except (aiohttp.ClientError, OSError) as error:
                problem = error
                deaths += not isinstance(error, aiohttp.ClientConnectorError)
            finally:
                replica.calls -= 1
            now = time.monotonic()
            replica.lost_until = now + LOST_SECONDS
            if deaths >= MOST_DEATHS:
                raise Unreachable(str(problem)) from problem
            if all(one.lost_until > now for one in self._replicas):
                if now - began > PATIENCE:
                    raise Unreachable(str(problem)) from problem
                await asyncio.sleep(0.1)

    async def prepare(self, version_id: str) -> str | None:
        """Have every replica open a version; why one never can, or None.

        Replicas that do not answer, or not within PREPARE_SECONDS, keep nobody from going on.
        """
        asked = [self._prepare(replica, version_id) for replica in self._replicas]
        reasons = await asyncio.gather(*asked)
        return next((reason for reason in reasons if reason is not None), None)

    async def _prepare(self, replica: Replica, version_id: str) -> str | None:
        timeout = aiohttp.ClientTimeout(total=PREPARE_SECONDS, sock_connect=PATIENCE)
        body = {"version": version_id}
        headers = {tenancy.HEADER: tenancy.current() or tenancy.DEFAULT, **telemetry.headers()}
        try:
            async with self._session.post(
                replica.url + "/prepare",
                json=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                if answer.status not in (500, 502):  # 503 and others: perhaps later
                    return None
                return str((await answer.json(content_type=None))["detail"])
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            logger.warning("%s did not prepare %s: %r", replica.url, version_id, error)
            return None
        except (ValueError, KeyError, TypeError):
            return f"the evaluator answered {answer.status}"

    def _best(self) -> Replica:
        """One that was not lost just now, with the fewest calls."""
        now = time.monotonic()
        return min(self._replicas, key=lambda one: (max(0.0, one.lost_until - now), one.calls))


def _passed_on(
    answer: aiohttp.ClientResponse, replica: Replica, rid: str, ending: Ending
) -> EventStream:
    """An evaluator's events; it has one call more until they end. A client that leaves closes the
    connection, which ends the evaluator's work."""
    replica.calls += 1

    def ended() -> None:
        replica.calls -= 1
        answer.close()

    return EventStream(_events(answer, rid, ending), ended)


async def _events(answer: aiohttp.ClientResponse, rid: str, ending: Ending) -> AsyncIterator[bytes]:
    """The evaluator's events, whole ones only; if it is lost before the last, an error."""
    rest, last = b"", False
    lost = problem(503, "evaluator_lost", "the evaluator was lost; ask again", rid)
    try:
        async for piece in answer.content.iter_any():
            whole, end, rest = (rest + piece).rpartition(sse.END)
            last = last or any(one.startswith(ending.events) for one in whole.split(sse.END))
            if whole:
                yield whole + end
    except TimeoutError:
        lost = problem(504, "evaluator_timeout", "the evaluator did not answer in time", rid)
    except (aiohttp.ClientError, OSError) as error:
        logger.warning("request %s: an evaluator was lost: %s", rid, error)
    if not last:
        yield ending.lost(orjson.loads(lost.body))


async def prepare(app: FastAPI, version_id: str) -> None:
    """Have the evaluators open a version before callers are sent to it. Raises Refused."""
    reason = await cast(Evaluators, app.state.evaluators).prepare(version_id)
    if reason is not None:
        detail = f"an evaluator cannot open this version: {reason}"
        raise Refused(409, "version_unservable", detail, param="version")


@asynccontextmanager
async def evaluators(urls: str) -> AsyncIterator[Evaluators]:
    """The replicas at these URLs, commas between them; connections live as long as the block."""
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=4,  # less than the 5 s of uvicorn, or it may close as we send
    )
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Evaluators([url.strip() for url in urls.split(",")], session)


async def _judge(request: Request, body: JudgeIn, selftaught_model: Named = None) -> Response:
    """Which of two responses is better? Both orders; `latest` if no model is named.

    With `stream: true` the answer is a stream of Server-Sent Events, each with JSON as its data:
    `start` (JudgeStart), `delta` (JudgeDelta) for every piece of an order's reasoning, seldom
    `restart` (JudgeRestart: the order is written anew), and at last either `verdict`, which is what
    the plain call answers, or `error`, a Problem. What fails before `start` has its own status.
    """
    return await _ask(request, "/judge", body, selftaught_model)


for path, hidden in (("/judge", False), ("/v1/judge", True)):
    router.add_api_route(
        path,
        _judge,
        methods=["POST"],
        name="judge",
        response_model=JudgeOut,
        dependencies=[Call],
        responses=_DOCS | _EVENTS,
        include_in_schema=not hidden,
    )


@router.post("/v1/score", response_model=ResponseScore, responses=_DOCS, dependencies=[Call])
async def score(request: Request, body: ScoreIn, selftaught_model: Named = None) -> Response:
    """How good is one response, from 0 to 10? The mean of as many samples as votes are asked."""
    return await _ask(request, "/v1/score", body, selftaught_model)


@router.post("/v1/rank", response_model=Ranking, responses=_DOCS, dependencies=[Call])
async def rank(request: Request, body: RankIn, selftaught_model: Named = None) -> Response:
    """Rank 2 to 64 responses by comparisons of pairs, all of them judged by one version."""
    return await _ask(request, "/v1/rank", body, selftaught_model)


async def _ask(request: Request, path: str, body: Asked, named: str | None) -> Response:
    if body.model is None and named is not None:
        body = body.model_copy(update={"model": named})
    return await ask(request, path, body, body.timeout_seconds)


async def ask(
    request: Request, path: str, body: BaseModel, seconds: float, ending: Ending = JUDGED
) -> Response:
    """An evaluator's answer, which it gives, or refuses, within so many seconds. Raises Refused."""
    found = cast(Evaluators, request.app.state.evaluators)
    headers = {
        "content-type": "application/json",
        "x-request-id": request_id(request) or "",
        tenancy.HEADER: tenancy.current() or tenancy.DEFAULT,
        **telemetry.headers(),
    }
    sent = body.model_dump_json(exclude_none=True).encode()
    try:
        return await while_connected(
            request, found.post(path, sent, headers, seconds + SPARE, ending)
        )
    except TimeoutError as error:
        raise Refused(504, "evaluator_timeout", "the evaluator did not answer in time") from error
    except Unreachable as error:
        raise Refused(
            503,
            "evaluator_unavailable",
            "the evaluator service cannot be reached; try again soon",
            headers={"Retry-After": "5"},
        ) from error
