"""POST /judge: passed through to the evaluator service, which holds the models."""

from __future__ import annotations

from typing import cast

import httpx
from fastapi import APIRouter, Request, Response

from selftaught.contracts import JudgeIn, JudgeOut
from selftaught.http import Refused, problem_docs, request_id

router = APIRouter(tags=["judge"])

TIMEOUT = httpx.Timeout(600.0, connect=5.0, pool=30.0)
_DOCS = problem_docs(404, 409, 503, 504)


def new_client(base_url: str) -> httpx.AsyncClient:
    """The client that lives as long as the app."""
    limits = httpx.Limits(max_connections=256)
    return httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT, limits=limits)


async def _judge(request: Request, body: JudgeIn) -> Response:
    """Which of two responses is better? Both orders; `latest` if no model is named."""
    client = cast(httpx.AsyncClient, request.app.state.evaluator)
    headers = {"content-type": "application/json", "x-request-id": request_id(request) or ""}
    try:
        answer = await client.post("/judge", content=body.model_dump_json(), headers=headers)
    except httpx.ReadTimeout as error:
        raise Refused(504, "evaluator_timeout", "the evaluator did not answer in time") from error
    except httpx.TransportError as error:
        raise Refused(
            503,
            "evaluator_unavailable",
            "the evaluator service cannot be reached; try again soon",
            headers={"Retry-After": "5"},
        ) from error
    kept = {k: v for k, v in answer.headers.items() if k in ("content-type", "retry-after")}
    return Response(answer.content, answer.status_code, kept)


for path, hidden in (("/judge", False), ("/v1/judge", True)):
    router.add_api_route(
        path,
        _judge,
        methods=["POST"],
        name="judge",
        response_model=JudgeOut,
        responses=_DOCS,
        include_in_schema=not hidden,
    )
