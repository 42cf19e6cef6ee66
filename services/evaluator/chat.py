"""POST /chat/completions: a version continues a conversation, as OpenAI's clients ask for it.

The messages are the caller's own: no template, no fences, no verdict is read. A stream is heard as
services/evaluator/live.py hears one.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import orjson
from fastapi import Request as HttpRequest

from selftaught.compat import DONE, chunk, failed
from selftaught.contracts import ChatAnswer, ChatChoice, ChatIn, ChatOut, ChatUsage
from selftaught.database.tables import ModelVersion
from selftaught.hashing import stable_seed
from selftaught.http import EventStream, Refused, as_problem, while_connected
from selftaught.ids import new_id
from selftaught.inference import Completion, Hear, Request
from selftaught.sse import KEEP_ALIVE
from services.evaluator.live import KEEP_ALIVE_SECONDS
from services.evaluator.ruling import TooLong


def requests_of(question: ChatIn) -> list[Request]:
    """One request for all choices; of a stream one for each, so that each is heard."""
    messages = [turn.message() for turn in question.messages]
    given = secrets.randbits(63) if question.seed is None else question.seed
    seed = stable_seed("chat", given)
    if not question.stream:
        return [Request(messages, seed, n=question.n)]
    return [Request(messages, seed, first=number) for number in range(question.n)]


def before_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first of the `stops`, and whether there is one."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def surely(text: str, stops: Sequence[str]) -> str:
    """What may be sent of a text that grows: what can be no part of one of the `stops`."""
    text, stopped = before_stop(text, stops)
    if stopped:
        return text
    held = (
        length
        for stop in stops
        for length in range(1, min(len(stop), len(text) + 1))
        if text.endswith(stop[:length])
    )
    return text[: len(text) - max(held, default=0)]


def completion(
    question: ChatIn, version: ModelVersion, answers: Sequence[Sequence[Completion]]
) -> ChatOut:
    """The answer, from the completions of :func:`requests_of`; raises TooLong."""
    choices = [one for found in answers for one in found]
    if any(one.finish_reason == "rejected" for one in choices):
        raise TooLong(f"the messages are too long for {version.ref}")
    prompt = choices[0].prompt_tokens
    written = sum(one.completion_tokens for one in choices)
    told = []
    for index, one in enumerate(choices):
        text, stopped = before_stop(one.text, question.stops)
        reason = "stop" if stopped or one.finished else "length"
        answer = ChatAnswer(content=text)
        told.append(ChatChoice(index=index, message=answer, finish_reason=reason))
    return ChatOut(
        **_head(version),
        choices=told,
        usage=ChatUsage(
            prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written
        ),
    )


def _head(version: ModelVersion) -> dict[str, Any]:
    return {
        "id": new_id("chatcmpl"),
        "created": int(time.time()),
        "model": version.ref,
        "system_fingerprint": f"fp_{version.sha256[:12]}",
    }


class Chunks:
    """A call that is listened to, and its chunks; lives in one event loop."""

    def __init__(self, question: ChatIn) -> None:
        self._loop = asyncio.get_running_loop()
        self._question = question
        self._changed = asyncio.Event()
        self._head: dict[str, Any] | None = None
        self._texts = [""] * question.n
        self._sent = [""] * question.n

    def begin(self, version: ModelVersion, requests: Sequence[Request]) -> list[Request]:
        """The call is about to ask the engine: the same requests, listened to."""
        self._head = {**_head(version), "object": "chat.completion.chunk"}
        self._changed.set()
        return [
            Request(one.messages, one.seed, one.n, one.first, hear=self._listener(index))
            for index, one in enumerate(requests)
        ]

    async def begun(self, call: asyncio.Task[ChatOut]) -> bool:
        """Wait until the call asks the engine; false if it ended before."""
        call.add_done_callback(self._ended)
        await self._changed.wait()
        return self._head is not None

    async def chunks(
        self, call: asyncio.Task[ChatOut], request: HttpRequest
    ) -> AsyncIterator[bytes]:
        """From the first role to [DONE]."""
        for index in range(self._question.n):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        try:
            while not call.done():
                self._changed.clear()
                for piece in self._news(self._texts):
                    yield piece
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    yield KEEP_ALIVE
            for piece in self._rest(call.result()):
                yield piece
        except Exception as error:  # noqa: BLE001 it is too late for a status
            yield failed(orjson.loads((await as_problem(request, error)).body))

    def _rest(self, out: ChatOut) -> Iterator[bytes]:
        """What the call's answer has beyond what was sent."""
        yield from self._news([one.message.content for one in out.choices], final=True)
        for one in out.choices:
            yield self._chunk(one.index, {}, one.finish_reason)
        options = self._question.stream_options
        if options is not None and options.include_usage:
            yield chunk({**self._shown(), "choices": [], "usage": out.usage.model_dump()})
        yield DONE

    def _listener(self, index: int) -> Hear:
        def hear(text: str) -> None:
            self._loop.call_soon_threadsafe(self._heard, index, text)

        return hear

    def _heard(self, index: int, text: str) -> None:
        self._texts[index] = text
        self._changed.set()

    def _ended(self, call: asyncio.Task[ChatOut]) -> None:
        if not call.cancelled():
            call.exception()  # seen, also if the client has left before it could be told
        self._changed.set()

    def _news(self, texts: Sequence[str], final: bool = False) -> Iterator[bytes]:
        """What has been written since the last time. A server that writes a text anew (it died) is
        silent until it has something new. Raises Refused if that is another text."""
        for index, text in enumerate(texts):
            sure = text if final else surely(text, self._question.stops)
            sent = self._sent[index]
            if sure == sent or (not final and sent.startswith(sure)):
                continue
            if not sure.startswith(sent):
                detail = "the engine was lost and wrote another answer; ask again"
                raise Refused(503, "engine_unavailable", detail)
            self._sent[index] = sure
            yield self._chunk(index, {"content": sure[len(sent) :]})

    def _chunk(self, index: int, delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return chunk({**self._shown(), "choices": [choice]})

    def _shown(self) -> dict[str, Any]:
        assert self._head is not None
        return self._head


async def answer(
    request: HttpRequest,
    question: ChatIn,
    asked: Callable[[Chunks], Coroutine[Any, Any, ChatOut]],
) -> EventStream:
    """The chunks of the call that `asked` makes. What it raises before it has begun is raised.

    When the client leaves, the call is cancelled.
    """
    heard = Chunks(question)
    call = asyncio.create_task(asked(heard))
    try:
        if not await while_connected(request, heard.begun(call)):
            call.result()
            raise AssertionError("a call that did not begin has failed")
    except BaseException:
        call.cancel()
        raise
    return EventStream(heard.chunks(call, request), ended=call.cancel)
