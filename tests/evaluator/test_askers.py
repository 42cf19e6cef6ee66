"""Calls over one session of a real server, and batches of an engine in this process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import orjson
import pytest

from selftaught.contracts import SamplingSettings
from selftaught.inference import Completion, Engine, EngineRefused, EngineUnavailable, Request
from selftaught.inference.openai import OpenAIEngine
from selftaught.stack.state import free_port
from services.evaluator import askers
from services.evaluator.askers import Streamed, Together

ROOT = Path(__file__).resolve().parents[2]
GREEDY = SamplingSettings(temperature=0, max_tokens=8)


class StandIn:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def answered(self) -> int:
        with urllib.request.urlopen(f"{self.url}/count", timeout=5) as reply:
            return int(orjson.loads(reply.read())["answered"])


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    port = free_port(lambda port: False)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.standin", str(port), "0.2"], cwd=ROOT
    )
    found = StandIn(port)
    for _ in range(600):
        try:
            found.answered()
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.05)
    yield found
    process.terminate()
    process.wait()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def ask(text: str) -> list[Request]:
    return [Request([{"role": "user", "content": f"{text} {order}"}], 1) for order in ("AB", "BA")]


def test_many_calls_share_one_session(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    before = server.answered()

    async def test() -> None:
        engine = OpenAIEngine(f"{server.url}/v1", "any", window=1000)
        opened = []
        real = engine.session
        monkeypatch.setattr(engine, "session", lambda: opened.append(1) or real())
        streamed = Streamed(engine)
        calls = [streamed.ask(ask(str(number)), GREEDY) for number in range(100)]
        found = await asyncio.gather(*calls)
        assert {len(one.completions) for one in found} == {2}
        assert all(one.engine >= 0.2 and one.queue >= 0 for one in found)
        assert len(opened) == 1
        await streamed.close()

    run(test)
    assert server.answered() == before + 200


def test_a_call_that_is_cancelled_ends_at_the_server(server: StandIn) -> None:
    before = server.answered()

    async def test() -> None:
        streamed = Streamed(OpenAIEngine(f"{server.url}/v1", "any"))
        call = asyncio.create_task(streamed.ask(ask("x"), GREEDY))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await streamed.ask(ask("y"), GREEDY)
        await streamed.close()

    run(test)
    assert server.answered() == before + 2


def test_a_session_ends_when_its_last_call_has(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(askers, "SESSION_SECONDS", 0.05)

    async def test() -> None:
        engine = OpenAIEngine(f"{server.url}/v1", "any")
        streamed = Streamed(engine)
        for _ in range(3):  # each call outlives its session
            found = await streamed.ask(ask("x"), GREEDY)
            assert found.completions[0][0].finished
        await streamed.close()

    run(test)


def test_what_fails_is_told_and_the_next_call_tries_again(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        engine = OpenAIEngine("http://127.0.0.1:1/v1", "any", attempts=1)
        streamed = Streamed(engine)
        with pytest.raises(EngineUnavailable):
            await streamed.ask(ask("x"), GREEDY)
        engine.url = f"{server.url}/v1/chat/completions"
        assert (await streamed.ask(ask("x"), GREEDY)).completions[1][0].finished
        await streamed.close()

    run(test)


class Held:
    """An engine that notes its batches; each waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Semaphore(0)

    def generate(self, requests: Sequence[Request], _: SamplingSettings) -> list[list[Completion]]:
        self.batches.append(len(requests))
        assert self.go.acquire(timeout=30)
        return [[Completion("", "stop", 1, 1)] for _ in requests]


def test_who_was_answered_together_is_asked_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers reach their callers one by one, and so do the next calls."""
    monkeypatch.setattr(askers, "QUIET_SECONDS", 30.0)
    monkeypatch.setattr(askers, "QUIET_SHARE", 1e9)
    engine = Held()

    async def test() -> None:
        together = Together(cast(Engine, engine))

        async def caller(number: int) -> None:
            for _ in range(2):
                await together.ask(ask(str(number)), GREEDY)
                await asyncio.sleep(0.02 * number)

        calls = [asyncio.create_task(caller(number)) for number in range(3)]
        engine.go.release(2)
        await asyncio.gather(*calls)

    run(test)
    assert engine.batches == [6, 6]


def test_nobody_waits_for_callers_that_do_not_come_back() -> None:
    engine = Held()

    async def test() -> None:
        together = Together(cast(Engine, engine))
        engine.go.release(2)
        await asyncio.gather(*(together.ask(ask(str(number)), GREEDY) for number in range(3)))
        await together.ask(ask("alone"), GREEDY)

    run(test)
    assert engine.batches == [6, 2]


def test_one_call_that_fails_costs_the_others_nothing() -> None:
    class Picky(Held):
        def generate(
            self, requests: Sequence[Request], sampling: SamplingSettings
        ) -> list[list[Completion]]:
            if any("bad" in request.messages[0]["content"] for request in requests):
                raise EngineRefused(422, "no")
            return super().generate(requests, sampling)

    engine = Picky()

    async def test() -> None:
        together = Together(cast(Engine, engine))
        engine.go.release(9)
        asked = [together.ask(ask(text), GREEDY) for text in ("one", "bad", "two")]
        one, bad, two = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(bad, EngineRefused)
        assert not isinstance(one, BaseException) and not isinstance(two, BaseException)

    run(test)
    assert engine.batches == [2, 2]
