"""What many callers share: looks, equal work, batches, sessions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from services.evaluator.sharing import Fresh, InFlight


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def settle() -> None:
    """Everything that can go on has."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_nobody_gets_what_was_seen_before_he_came() -> None:
    async def test() -> None:
        numbers, gates = itertools.count(), [asyncio.Event() for _ in range(4)]

        async def look(key: str) -> int:
            number = next(numbers)
            await gates[number].wait()
            return number

        fresh: Fresh[str, int] = Fresh(look)
        first = asyncio.create_task(fresh.get("a"))
        await settle()
        later = [asyncio.create_task(fresh.get("a")) for _ in range(5)]
        await settle()
        gates[0].set()
        assert await first == 0
        await settle()
        last = asyncio.create_task(fresh.get("a"))
        await settle()
        gates[1].set()
        assert [await one for one in later] == [1] * 5
        gates[2].set()
        assert await last == 2
        gates[3].set()
        assert await fresh.get("a") == 3

    run(test)


def test_a_failed_look_is_told_and_the_next_one_runs() -> None:
    async def test() -> None:
        answers = iter([ValueError("no"), "yes"])

        async def look(key: str) -> str:
            await asyncio.sleep(0)
            answer = next(answers)
            if isinstance(answer, ValueError):
                raise answer
            return answer

        fresh: Fresh[str, str] = Fresh(look)
        with pytest.raises(ValueError, match="no"):
            await fresh.get("a")
        assert await fresh.get("a") == "yes"

    run(test)


def test_one_who_leaves_does_not_end_the_work_of_others() -> None:
    async def test() -> None:
        gate, done = asyncio.Event(), []

        async def work() -> int:
            await gate.wait()
            done.append(1)
            return len(done)

        flights: InFlight[str, int] = InFlight()
        calls = [asyncio.create_task(flights.get("a", work)) for _ in range(3)]
        await settle()
        calls[0].cancel()
        await settle()
        gate.set()
        assert [await call for call in calls[1:]] == [1, 1]
        assert await flights.get("a", work) == 2

    run(test)


def test_work_ends_when_the_last_one_has_left() -> None:
    async def test() -> None:
        ended = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        flights: InFlight[str, None] = InFlight()
        calls = [asyncio.create_task(flights.get("a", work)) for _ in range(2)]
        await settle()
        for call in calls:
            assert not ended
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
        await settle()
        assert ended == [1]

    run(test)


def test_an_error_is_told_to_all_and_not_kept() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        answers = iter([False, True])

        async def work() -> str:
            await gate.wait()
            if next(answers):
                return "fine"
            raise ValueError("no")

        flights: InFlight[str, str] = InFlight()
        calls = [asyncio.create_task(flights.get("a", work)) for _ in range(2)]
        await settle()
        gate.set()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(one) for one in found] == ["no", "no"]
        assert await flights.get("a", work) == "fine"

    run(test)
