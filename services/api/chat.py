"""A version as OpenAI's clients ask a model: chat completions, and which models there are.

Below a prefix of their own, because `GET /v1/models` is ours and answers something else. Here
everything is OpenAI's, errors too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response
from sqlalchemy import select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selftaught import aliases, openapi, sse
from selftaught.compat import DONE, error_of, failed
from selftaught.contracts import ChatError, ChatIn, ChatModel, ChatModels, ChatOut
from selftaught.database import transaction
from selftaught.database.tables import Alias, ModelVersion
from selftaught.http import problem_docs
from services.api.deps import StorableBody
from services.api.judge import Ending, ask
from services.api.limits import Call

router = APIRouter(tags=["openai"])

PREFIX = "/openai/v1"
PATHS = ("/v1/chat/completions", f"{PREFIX}/")
"""How addresses begin whose errors are OpenAI's."""
SECONDS = 600.0
"""Deadline of a completion, which the evaluator keeps."""
MOST_MODELS = 1000
_CHUNKS = Ending((DONE.rstrip(),), failed)
_EXAMPLE = """\
data: {"id": "chatcmpl_019a..", "object": "chat.completion.chunk", "created": 1795777200, \
"model": "tour:1", "system_fingerprint": "fp_1f0c6b9a2e7d", "choices": [{"index": 0, \
"delta": {"content": "q f m"}, "logprobs": null, "finish_reason": null}]}

data: [DONE]

"""
_DOCS: dict[int | str, dict[str, Any]] = {
    **problem_docs(404, 409, 429, 502, 503, 504),
    200: {"content": {sse.MEDIA_TYPE: {"schema": sse.SCHEMA, "example": _EXAMPLE}}},
}
_ERROR = {"$ref": "#/components/schemas/ChatError"}


async def _complete(request: Request, body: ChatIn) -> Response:
    """Continue a conversation, as OpenAI's chat completions.

    The messages reach the version as they are; `/judge` is for those who want its template, both
    orders and a verdict. `model` of the answer is the exact version, and `system_fingerprint` says
    its weights. `stream` answers with chunks. Errors are OpenAI's: `{"error": {..}}`.
    """
    return await ask(request, "/chat/completions", body, SECONDS, _CHUNKS)


for path, hidden in ((f"{PREFIX}/chat/completions", False), ("/v1/chat/completions", True)):
    router.add_api_route(
        path,
        _complete,
        methods=["POST"],
        name="create_chat_completion",
        response_model=ChatOut,
        dependencies=[StorableBody, Call],
        responses=_DOCS,
        include_in_schema=not hidden,
    )


@router.get(f"{PREFIX}/models", responses=problem_docs())
def list_chat_models() -> ChatModels:
    """Models that have a `latest` version, as OpenAI lists models; the first thousand by name."""
    query = (
        select(Alias.model, ModelVersion.created_at)
        .join(ModelVersion, ModelVersion.id == Alias.version_id)
        .where(Alias.alias == aliases.LATEST)
        .order_by(Alias.model)
        .limit(MOST_MODELS)
    )
    with transaction() as session:
        found = session.execute(query).all()
    return ChatModels(
        data=[ChatModel(id=model, created=int(made.timestamp())) for model, made in found]
    )


@router.get(f"{PREFIX}/models/{{ref}}", responses=problem_docs(404, 409))
def get_chat_model(
    ref: Annotated[
        str,
        Path(max_length=200, description="name, name:alias or name:number.", examples=["tour"]),
    ],
) -> ChatModel:
    """One model, as OpenAI tells of it."""
    with transaction() as session:
        version = aliases.resolve(session, ref)
        return ChatModel(id=ref, created=int(version.created_at.timestamp()))


class Errors:
    """Outermost: problems that these routes answer, whatever made them, become OpenAI's errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATHS):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def translated(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                kinds = [value for name, value in message["headers"] if name == b"content-type"]
                if kinds == [openapi.PROBLEM_TYPE.encode()]:
                    start = message
                    return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                await _send_error(start, orjson.loads(body), send)

        await self._app(scope, receive, translated)


async def _send_error(start: Message, problem: dict[str, Any], send: Send) -> None:
    status, error = error_of(problem)
    content = orjson.dumps(error)
    changed = {b"content-type": b"application/json", b"content-length": b"%d" % len(content)}
    headers = [(name, value) for name, value in start["headers"] if name not in changed]
    await send({**start, "status": status, "headers": [*headers, *changed.items()]})
    await send({"type": "http.response.body", "body": content})


def documented(written: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The OpenAPI document that `written` gives, with the errors of these routes as they are."""

    def found() -> dict[str, Any]:
        document = written()
        schema = ChatError.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document["components"]["schemas"]
        schemas.update(schema.pop("$defs"))
        schemas["ChatError"] = schema
        for path, methods in document["paths"].items():
            if path.startswith(PATHS):
                for operation in methods.values():
                    operation["responses"] = dict(map(_as_error, operation["responses"].items()))
        return document

    return found


def _as_error(item: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """A status and its answer; a problem becomes an error, at the status that it then has."""
    _, answer = item
    if (shown := answer.get("content", {}).get(openapi.PROBLEM_TYPE)) is None:
        return item
    status, error = error_of(shown["example"])
    told = {**answer, "content": {"application/json": {"schema": _ERROR, "example": error}}}
    return str(status), told
