"""POST /judge with `stream`: what the engine writes is sent as it writes it.

The call itself is the same; a :class:`Live` listens to it. What it hears is kept as texts, not as
messages, so a client that reads slowly gets fewer, longer pieces, and nothing piles up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson
from fastapi import Request as HttpRequest
from pydantic import BaseModel

from selftaught.contracts import JudgeDelta, JudgeIn, JudgeOut, JudgeRestart, JudgeStart
from selftaught.database.tables import ModelVersion
from selftaught.http import EventStream, as_problem, while_connected
from selftaught.inference import Completion, Hear, Request
from selftaught.judging import JudgeTemplate, Order
from selftaught.sse import KEEP_ALIVE, event
from services.evaluator.ruling import orders_of

KEEP_ALIVE_SECONDS = 15.0
"""A comment is sent after so long without an event."""


class Live:
    """A call that is listened to, and its events; lives in one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._start: JudgeStart | None = None
        self._texts: dict[Order, str] = {}
        self._sent: dict[Order, str] = {}

    def begin(
        self,
        question: JudgeIn,
        version: ModelVersion,
        template: JudgeTemplate,
        requests: Sequence[Request],
    ) -> list[Request]:
        """The call is about to ask the engine: the same requests, listened to.

        A second time if it asks another version, because a canary's failed; the first one is not
        heard any more.
        """
        orders = list(orders_of(question))
        start = self._start = JudgeStart(
            model=version.ref,
            template=template.name,
            template_sha256=template.sha256,
            orders=orders,
        )
        self._texts = dict.fromkeys(orders, "")
        self._sent = dict.fromkeys(orders, "") | self._sent
        self._changed.set()
        return [
            replace(request, hear=self._listener(start, order))
            for order, request in zip(orders, requests, strict=True)
        ]

    def end(self, answers: Sequence[Sequence[Completion]]) -> None:
        """The engine has answered; these are the texts, whatever was heard."""
        for order, (vote, *_) in zip(self._texts, answers, strict=True):
            self._texts[order] = vote.text

    async def begun(self, call: asyncio.Task[JudgeOut]) -> bool:
        """Wait until the call asks the engine (or its cache); false if it ended before."""
        call.add_done_callback(self._ended)
        await self._changed.wait()
        return self._start is not None

    async def events(
        self, call: asyncio.Task[JudgeOut], request: HttpRequest
    ) -> AsyncIterator[bytes]:
        """From `start` to `verdict` or `error`."""
        assert self._start is not None
        told: JudgeStart | None = None
        while not call.done():
            self._changed.clear()
            if told is not self._start:
                told = self._start
                yield _event("start", told)
            for piece in self._news(final=False):
                yield piece
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                yield KEEP_ALIVE
        if told is not self._start:
            yield _event("start", self._start)
        error = call.exception()
        if error is None:
            for piece in self._news(final=True):
                yield piece
            yield _event("verdict", call.result())
        elif isinstance(error, Exception):
            yield event("error", orjson.loads((await as_problem(request, error)).body))
        else:
            raise error

    def _listener(self, start: JudgeStart, order: Order) -> Hear:
        def hear(text: str) -> None:
            self._loop.call_soon_threadsafe(self._heard, start, order, text)

        return hear

    def _ended(self, call: asyncio.Task[JudgeOut]) -> None:
        if not call.cancelled():
            call.exception()  # seen, also if the client has left before it could be told
        self._changed.set()

    def _heard(self, start: JudgeStart, order: Order, text: str) -> None:
        if start is self._start:
            self._texts[order] = text
            self._changed.set()

    def _news(self, final: bool) -> Iterator[bytes]:
        """What has been written since the last time. An engine that writes a text anew (its server
        died) is silent until it writes something that has not been sent, or something else."""
        for order, text in self._texts.items():
            sent = self._sent[order]
            if text == sent or (not final and sent.startswith(text)):
                continue
            if not text.startswith(sent):
                yield _event("restart", JudgeRestart(order=order))
                sent = ""
            self._sent[order] = text
            yield _event("delta", JudgeDelta(order=order, text=text[len(sent) :]))


async def answer(
    request: HttpRequest, judged: Callable[[Live], Coroutine[Any, Any, JudgeOut]]
) -> EventStream:
    """The events of the call that `judged` makes. What it raises before it has begun is raised.

    When the client leaves, the call is cancelled.
    """
    live = Live()
    call = asyncio.create_task(judged(live))
    try:
        if not await while_connected(request, live.begun(call)):
            call.result()
            raise AssertionError("a call that did not begin has failed")
    except BaseException:
        call.cancel()
        raise
    return EventStream(live.events(call, request), ended=call.cancel)


def _event(name: str, data: BaseModel) -> bytes:
    return event(name, data.model_dump(mode="json"))
