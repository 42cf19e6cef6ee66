"""Keeps a server busy: requests stream into a window, and no batch waits for its slowest member.

Dialogues are asked side by side. A dialogue decides by itself, from what came back, whether it asks
again; meanwhile the others run on. New ones begin only when the window has room, so memory is
bounded by the window, and the samples of one prompt go out one behind the other, or some of them in
one request, so that a server with a prefix cache computes the prompt once.
"""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Generic, Protocol, TypeVar

from selftaught import stopping, telemetry
from selftaught.inference.protocol import (
    Completion,
    Dialogue,
    EngineRefused,
    Hear,
    InferenceError,
    Request,
    Sampling,
    answer,
)
from selftaught.judging import Message

Prompt = TypeVar("Prompt")


class Window:
    """Room for work in flight, first come, first served; `limit` and costs in the same unit.

    A cost above the limit waits until it is alone.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._used, self._holders = 0.0, 0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._given = asyncio.Event()

    @asynccontextmanager
    async def hold(self, cost: float) -> AsyncIterator[None]:
        """Wait for room, and take it while the block runs."""
        if self._waiting or not self._fits(cost):
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((cost, future))
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._give(cost)
                else:  # who came behind it may fit
                    self._let_in()
                raise
        else:
            self._take(cost)
        try:
            yield
        finally:
            self._give(cost)

    async def room(self) -> None:
        """Wait until somebody who comes need not wait behind others."""
        while self._waiting or not self._fits(1):
            self._given.clear()
            await self._given.wait()

    def widen(self, limit: float) -> None:
        """Another limit; who has room now is let in."""
        if limit != self.limit:
            self.limit = limit
            self._let_in()

    def _fits(self, cost: float) -> bool:
        # Holders are counted: sums of fractions seldom come back to exactly 0.
        return not self._holders or self._used + cost <= self.limit

    def _take(self, cost: float) -> None:
        self._used += cost
        self._holders += 1

    def _give(self, cost: float) -> None:
        self._holders -= 1
        self._used = self._used - cost if self._holders else 0.0
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            waiting, future = self._waiting.popleft()
            if not future.done():
                self._take(waiting)
                future.set_result(None)
        self._given.set()


class Session(Protocol[Prompt]):
    """One call's connections to a server."""

    window: Window

    @property
    def model(self) -> str:
        """As the server knows it."""
        ...

    def prepare(self, messages: Sequence[Message]) -> Prompt:
        """A conversation as the server takes it; made once for all its samples."""
        ...

    def cost(self, prompt: Prompt, sampling: Sampling) -> float:
        """What one sample takes of the window."""
        ...

    def together(self, sampling: Sampling) -> int:
        """So many samples of a prompt go out as one request, at most."""
        ...

    async def ask(
        self,
        prompt: Prompt,
        seed: int,
        samples: range,
        sampling: Sampling,
        hear: Hear | None = None,
        marks: tuple[str, ...] = (),
    ) -> list[Completion] | EngineRefused:
        """These samples, at most `together`, and one if `hear` is told of it (`marks` as in
        Request); an EngineRefused that is returned is about this prompt alone."""
        ...


class StreamingEngine(ABC, Generic[Prompt]):
    """An engine behind a server."""

    @abstractmethod
    def session(self) -> AbstractAsyncContextManager[Session[Prompt]]:
        """What one call needs; lives in its event loop."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """See Engine. Not to be called from a running event loop."""
        answers: list[list[Completion]] = [[] for _ in requests]

        def once(index: int) -> Dialogue:
            answers[index] = yield requests[index], sampling

        self.converse([once(index) for index in range(len(requests))])
        return answers

    def converse(self, dialogues: Iterable[Dialogue]) -> None:
        """See Engine. Not to be called from a running event loop.

        A prompt that the server rejects as such becomes a "rejected" completion. If it rejects all
        of them, and not for their length, then the set-up is wrong: EngineRefused. Work that is
        called off (see stopping) ends its requests: Stopped.
        """
        asyncio.run(self._converse(dialogues))

    def close(self) -> None:
        """Nothing stays open between calls."""

    async def _converse(self, dialogues: Iterable[Dialogue]) -> None:
        async with self.session() as session:
            with _traced(session) as call:
                try:
                    async with asyncio.TaskGroup() as whole:
                        watcher = whole.create_task(stopping.called_off())
                        async with asyncio.TaskGroup() as group:
                            for dialogue in dialogues:
                                await session.window.room()
                                group.create_task(call.follow(dialogue))
                                await asyncio.sleep(0)  # it takes its room first
                        watcher.cancel()
                except BaseExceptionGroup as errors:
                    raise _first(errors) from None
                call.check()


async def ask_within(
    session: Session[Prompt], requests: Sequence[Request], sampling: Sampling
) -> tuple[list[list[Completion]], float]:
    """Engine.generate within a session that stays open, and when (time.perf_counter) it began.

    It has begun when the window has room for the first sample. Cancelling it ends its requests.
    """
    answers: list[list[Completion]] = [[] for _ in requests]

    def once(index: int) -> Dialogue:
        answers[index] = yield requests[index], sampling

    with _traced(session) as call:
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(requests)):
                    group.create_task(call.follow(once(index)))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        call.check()
    return answers, call.began


class _Call(Generic[Prompt]):
    """The dialogues of one call, and what became of their requests."""

    def __init__(self, session: Session[Prompt]) -> None:
        self.began = math.inf
        self._session = session
        self._refusals: list[EngineRefused] = []
        self._answered = False
        self.samples = self.prompt_tokens = self.completion_tokens = 0

    async def follow(self, dialogue: Dialogue) -> None:
        """Ask what the dialogue asks, until it asks no more."""
        asked = next(dialogue, None)
        messages: Sequence[Message] | None = None
        while asked is not None:
            request, sampling = asked
            if request.messages is not messages:  # one that asks on is not prepared again
                messages, prompt = request.messages, self._session.prepare(request.messages)
            some = 1 if request.hear else self._session.together(sampling)
            end = request.first + request.n
            async with asyncio.TaskGroup() as siblings:
                parts = [
                    siblings.create_task(
                        self._some(prompt, request, range(first, min(first + some, end)), sampling)
                    )
                    for first in range(request.first, end, some)
                ]
            asked = answer(dialogue, [one for part in parts for one in part.result()])

    async def _some(
        self, prompt: Prompt, request: Request, samples: range, sampling: Sampling
    ) -> list[Completion]:
        hear = request.hear if samples.start == request.first else None
        cost = len(samples) * self._session.cost(prompt, sampling)
        async with self._session.window.hold(cost):
            self.began = min(self.began, time.perf_counter())
            found = await self._session.ask(
                prompt, request.seed, samples, sampling, hear, request.marks
            )
        if isinstance(found, EngineRefused):
            self._refusals.append(found)
            return [Completion("", "rejected", 0, 0)] * len(samples)
        self._answered = True
        self.samples += len(found)
        self.prompt_tokens += sum(one.prompt_tokens for one in found)
        self.completion_tokens += sum(one.completion_tokens for one in found)
        return found

    def check(self) -> None:
        """Raise if nothing was answered, and not for the prompts' length."""
        if self._refusals and not self._answered and not all(map(_too_long, self._refusals)):
            raise self._refusals[0]


@contextmanager
def _traced(session: Session[Prompt]) -> Iterator[_Call[Prompt]]:
    """A call, and its one span: each of its requests carries that on, and has none of its own."""
    about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": session.model}
    with telemetry.span(f"chat {session.model}", "client", attributes=about) as span:
        call = _Call(session)
        try:
            yield call
        finally:
            span.set_attribute("selftaught.samples", call.samples)
            span.set_attribute("gen_ai.usage.input_tokens", call.prompt_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", call.completion_tokens)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to tell: inference's own before others, as they came."""
    leaves: list[BaseException] = []
    groups: list[BaseException] = [errors]
    while groups:
        one = groups.pop(0)
        if isinstance(one, BaseExceptionGroup):
            groups += one.exceptions
        else:
            leaves.append(one)
    return next((one for one in leaves if isinstance(one, InferenceError)), leaves[0])


def _too_long(refusal: EngineRefused) -> bool:
    """The prompt, and nothing else, is at fault (vLLM and OpenAI say "maximum context length")."""
    return refusal.status == 413 or "context length" in str(refusal).replace("_", " ").lower()
