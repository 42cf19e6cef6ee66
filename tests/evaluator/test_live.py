"""Texts as an engine tells them, and the events that become of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from fastapi import Request as HttpRequest

from selftaught.contracts import JudgeIn, JudgeOut
from selftaught.database.tables import ModelVersion
from selftaught.inference import Completion, Hear
from selftaught.judging import load_judge_template
from selftaught.sse import event
from services.evaluator.live import Live
from services.evaluator.ruling import requests_of

TEMPLATE = load_judge_template("mt-bench")
QUESTION = JudgeIn(instruction="i", response_a="a", response_b="b", both_orders=False)
Scene = Callable[[Hear, AsyncIterator[bytes], Callable[[str], None]], Awaitable[None]]


def play(scene: Scene) -> None:
    """`scene` gets who listens to the engine, the events from behind `start`, and a way to end."""

    async def run() -> None:
        ended = asyncio.Event()
        live = Live()
        version = ModelVersion(model="m", number=3)
        (request,) = live.begin(QUESTION, version, TEMPLATE, requests_of(QUESTION, TEMPLATE, b""))

        async def judged() -> JudgeOut:
            await ended.wait()
            return cast(JudgeOut, JudgeOut.model_construct(model="m:3"))

        def end(text: str) -> None:
            live.end([[Completion(text, "stop", 1, 1)]])
            ended.set()

        call = asyncio.create_task(judged())
        assert await live.begun(call)
        events = live.events(call, cast(HttpRequest, None))
        assert b'"model": "m:3"' in await anext(events)
        assert request.hear is not None
        await scene(request.hear, events, end)
        assert (await anext(events)).startswith(b"event: verdict")
        assert [one async for one in events] == []

    asyncio.run(asyncio.wait_for(run(), 30))


def delta(text: str) -> bytes:
    return event("delta", {"order": "AB", "text": text})


async def silent(coming: asyncio.Future[Any]) -> bool:
    """Nothing comes, however often the loop goes round."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not coming.done()


def test_what_is_written_again_is_not_sent_again() -> None:
    async def scene(hear: Hear, events: AsyncIterator[bytes], end: Callable[[str], None]) -> None:
        hear("one two")
        assert await anext(events) == delta("one two")
        coming = asyncio.ensure_future(anext(events))
        for again in ("o", "one", "one two"):  # its server died, and another one writes the same
            hear(again)
            assert await silent(coming)
        hear("one two three")
        assert await coming == delta(" three")
        end("one two three four")
        assert await anext(events) == delta(" four")

    play(scene)


def test_a_text_that_comes_out_differently_begins_anew() -> None:
    async def scene(hear: Hear, events: AsyncIterator[bytes], end: Callable[[str], None]) -> None:
        restart = event("restart", {"order": "AB"})
        hear("one two")
        assert await anext(events) == delta("one two")
        hear("one too")
        assert [await anext(events), await anext(events)] == [restart, delta("one too")]
        end("one")  # the whole text, and not a part of it
        assert [await anext(events), await anext(events)] == [restart, delta("one")]

    play(scene)


def test_who_reads_slowly_gets_longer_pieces() -> None:
    async def scene(hear: Hear, events: AsyncIterator[bytes], end: Callable[[str], None]) -> None:
        for text in ("a", "ab", "abc"):
            hear(text)
        await asyncio.sleep(0)
        assert await anext(events) == delta("abc")
        end("abc")

    play(scene)
