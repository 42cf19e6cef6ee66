"""The window, and dialogues side by side in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from selftaught.inference import (
    Completion,
    Dialogue,
    EngineRefused,
    EngineUnavailable,
    Hear,
    Request,
    Sampling,
)
from selftaught.inference.streaming import StreamingEngine, Window
from selftaught.judging import Message

Answer = Callable[[str, int], Awaitable[Completion | EngineRefused]]


class Scripted(StreamingEngine[str]):
    """Answers from a coroutine; remembers what was prepared, and how much was in flight at most."""

    model = "scripted"

    def __init__(
        self, answer: Answer, limit: float = 4, cost: float = 1, together: int = 1
    ) -> None:
        self.answer, self.limit, self.price, self.some = answer, limit, cost, together
        self.asked: list[range] = []
        self.prepared: list[str] = []
        self.now = self.most = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Scripted]:
        self.window = Window(self.limit)
        yield self

    def prepare(self, messages: Sequence[Message]) -> str:
        self.prepared.append(messages[0]["content"])
        return messages[0]["content"]

    def cost(self, prompt: str, sampling: Sampling) -> float:
        return self.price

    def together(self, sampling: Sampling) -> int:
        return self.some

    async def ask(
        self,
        prompt: str,
        seed: int,
        samples: range,
        sampling: Sampling,
        hear: Hear | None = None,
        marks: tuple[str, ...] = (),
    ) -> list[Completion] | EngineRefused:
        self.now += len(samples)
        self.most = max(self.most, self.now)
        self.asked.append(samples)
        try:
            found = []
            for sample in samples:
                if isinstance(one := await self.answer(prompt, sample), EngineRefused):
                    return one
                found.append(one)
            return found
        finally:
            self.now -= len(samples)


def said(text: str) -> Completion:
    return Completion(text, "stop", 1, 1)


def request(text: str, n: int = 1, first: int = 0) -> Request:
    return Request([{"role": "user", "content": text}], 0, n, first)


async def echo(prompt: str, sample: int) -> Completion:
    await asyncio.sleep(0.001)
    return said(f"{prompt}{sample}")


def test_answers_are_those_of_the_request_in_order() -> None:
    engine = Scripted(echo)
    answers = engine.generate([request("a", 3), request("b", 0), request("c", 2, 5)], Sampling())
    assert [[c.text for c in some] for some in answers] == [["a0", "a1", "a2"], [], ["c5", "c6"]]


def test_a_dialogue_asks_on_while_another_waits_for_its_first_answer() -> None:
    """`slow` is answered when `quick` is done: a barrier between waves would wait for ever."""
    done = asyncio.Event()

    async def answer(prompt: str, sample: int) -> Completion:
        if prompt == "slow":
            await asyncio.wait_for(done.wait(), 30)
        return said(str(sample))

    def quick() -> Dialogue:
        for wave in range(5):
            yield request("quick", 2, 2 * wave), Sampling()
        done.set()

    def slow() -> Dialogue:
        yield request("slow"), Sampling()

    Scripted(answer).converse([slow(), quick()])
    assert done.is_set()


def test_a_prompt_that_is_asked_on_is_prepared_once() -> None:
    messages: list[Message] = [{"role": "user", "content": "same"}]

    def waves() -> Dialogue:
        for wave in range(3):
            yield Request(messages, 0, 2, 2 * wave), Sampling()

    engine = Scripted(echo)
    engine.converse([waves()])
    assert engine.prepared == ["same"]


def test_the_window_bounds_what_is_in_flight_and_what_has_begun() -> None:
    begun = ended = 0

    async def answer(prompt: str, sample: int) -> Completion:
        nonlocal ended
        await asyncio.sleep(0.001)
        ended += 1
        return said("x")

    def dialogues() -> Iterator[Dialogue]:
        nonlocal begun
        for number in range(50):
            begun += 1
            assert begun - ended <= 6  # the window, and the one that looks for room
            yield one(str(number))

    def one(text: str) -> Dialogue:
        yield request(text), Sampling()

    engine = Scripted(answer, limit=4)
    engine.converse(dialogues())
    assert engine.most == 4
    assert ended == 50


@pytest.mark.parametrize(("limit", "cost", "most"), [(10, 3, 3), (10, 10, 1), (2, 7, 1)])
def test_a_cost_takes_its_room_and_one_above_the_limit_goes_alone(
    limit: float, cost: float, most: int
) -> None:
    engine = Scripted(echo, limit, cost)
    engine.generate([request(str(n)) for n in range(12)], Sampling())
    assert engine.most == most


def test_who_waits_for_room_gets_it_in_order_and_a_cancelled_one_leaves_its_place() -> None:
    async def scene() -> list[str]:
        window = Window(1)
        order: list[str] = []

        async def one(name: str, cost: float) -> None:
            async with window.hold(cost):
                order.append(name)
                await asyncio.sleep(0)

        first, big, gone, last = (
            asyncio.create_task(one(name, cost))
            for name, cost in (("first", 1), ("big", 5), ("gone", 1), ("last", 1))
        )
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(first, big, last)
        async with asyncio.timeout(5):
            await window.room()
        return order

    assert asyncio.run(scene()) == ["first", "big", "last"]


def test_a_cost_above_the_limit_goes_alone_after_costs_that_are_fractions() -> None:
    async def scene() -> None:
        window = Window(1)
        for _ in range(3):
            async with window.hold(0.1), window.hold(0.2), window.hold(0.3):
                pass  # their sum and differences leave a rest of 5e-17
        async with asyncio.timeout(5), window.hold(7):
            pass

    asyncio.run(scene())


def test_a_wider_window_lets_in_who_waits() -> None:
    async def scene() -> None:
        window = Window(1)
        async with window.hold(1):
            waiting = asyncio.create_task(window.hold(1).__aenter__())
            await asyncio.sleep(0)
            window.widen(2)
            async with asyncio.timeout(5):
                await waiting

    asyncio.run(scene())


def test_who_gives_up_at_the_head_lets_in_who_fits() -> None:
    async def scene() -> None:
        window = Window(2)
        async with window.hold(1):
            big = asyncio.create_task(window.hold(2).__aenter__())
            small = asyncio.create_task(window.hold(1).__aenter__())
            await asyncio.sleep(0)
            big.cancel()
            async with asyncio.timeout(5):
                await small

    asyncio.run(scene())


def test_samples_of_a_prompt_go_out_together_and_take_the_room_of_all() -> None:
    engine = Scripted(echo, limit=4, together=3)
    answers = engine.generate([request("a", 7, 5), request("b", 2)], Sampling())
    assert [[one.text for one in some] for some in answers] == [
        [f"a{sample}" for sample in range(5, 12)],
        ["b0", "b1"],
    ]
    assert sorted(engine.asked, key=str) == [range(2), range(11, 12), range(5, 8), range(8, 11)]
    assert engine.most <= 4


def test_a_sample_that_is_heard_goes_alone() -> None:
    engine = Scripted(echo, together=3)
    engine.generate([Request([{"role": "user", "content": "a"}], 0, 2, hear=print)], Sampling())
    assert engine.asked == [range(1), range(1, 2)]


def test_a_failure_ends_the_call_and_is_told_as_it_is() -> None:
    async def answer(prompt: str, sample: int) -> Completion:
        if prompt == "bad":
            raise EngineUnavailable("away")
        await asyncio.sleep(3600)
        return said("never")

    with pytest.raises(EngineUnavailable, match="away"):
        Scripted(answer).generate([request("waits", 2), request("bad")], Sampling())


async def refuse(prompt: str, sample: int) -> Completion | EngineRefused:
    if prompt == "fine":
        return said("yes")
    detail = "maximum context length" if prompt == "long" else "no such thing"
    return EngineRefused(400, detail)


def test_a_refused_prompt_is_rejected_and_the_others_are_answered() -> None:
    answers = Scripted(refuse).generate([request("odd", 2), request("fine")], Sampling())
    assert [[c.finish_reason for c in some] for some in answers] == [["rejected"] * 2, ["stop"]]
    asked = [request("odd", 2), request("fine")]
    answers = Scripted(refuse, together=4).generate(asked, Sampling())
    assert [[c.finish_reason for c in some] for some in answers] == [["rejected"] * 2, ["stop"]]


def test_if_all_are_refused_the_set_up_is_wrong_unless_they_are_too_long() -> None:
    with pytest.raises(EngineRefused, match="no such thing"):
        Scripted(refuse).generate([request("odd"), request("odd")], Sampling())
    (found,), _ = Scripted(refuse).generate([request("long"), request("long")], Sampling())
    assert found.finish_reason == "rejected"
