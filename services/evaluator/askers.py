"""How calls that come one by one share a model: a batch for them all, or a session held open.

A model in this process answers one batch at a time: calls that come meanwhile are its next batch.
A server batches by itself: each call's requests go out at once, over connections that stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

from anyio import to_thread

from selftaught import telemetry
from selftaught.contracts import SamplingSettings
from selftaught.inference import Completion, Engine, Request
from selftaught.inference.streaming import Session, StreamingEngine, ask_within

SESSION_SECONDS = 30.0
"""A session serves the calls of so many seconds; the next one reads keys and wants servers anew."""
MOST_SAMPLES = 256
"""Samples of one batch in this process, so that nobody waits for hundreds of others."""

QUIET_SECONDS = 0.03
"""Behind a batch the next one waits until as many calls wait, or none came for so long .."""
QUIET_SHARE = 0.1
""".. and for no longer than this share of the time that the batch took."""


@dataclass(frozen=True)
class Answered:
    """Completions for each request; seconds waited for the engine, and seconds in it."""

    completions: list[list[Completion]]
    queue: float
    engine: float


class Asker(Protocol):
    """A model that many ask at once, from one event loop."""

    async def ask(self, requests: Sequence[Request], sampling: SamplingSettings) -> Answered:
        """As Engine.generate. Cancelling it ends its work, as far as that has not begun."""
        ...

    async def warm(self) -> None:
        """Do what the first call would wait for; raises what a call would."""
        ...

    async def close(self) -> None:
        """Give connections back; it is not asked afterwards."""
        ...


def asker(engine: Engine) -> Asker:
    """The way to ask this engine."""
    return Streamed(engine) if isinstance(engine, StreamingEngine) else Together(engine)


@dataclass(eq=False)
class _Call:
    requests: Sequence[Request]
    sampling: SamplingSettings
    answer: asyncio.Future[Answered]
    came: float = field(default_factory=perf_counter)


class Together:
    """Calls that wait while the engine works are answered by its next batch."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[_Call] = []
        self._worker: asyncio.Task[None] | None = None
        self._before = 0  # calls of the batch that has just ended
        self._took = self._ended = 0.0  # how long it took, and when it ended

    async def ask(self, requests: Sequence[Request], sampling: SamplingSettings) -> Answered:
        """See Asker."""
        call = _Call(requests, sampling, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._worker is None:  # for all who come, so in no one's context
            self._worker = asyncio.create_task(self._work(), context=Context())
        with telemetry.span("chat in a batch"):
            return await call.answer

    async def warm(self) -> None:
        """See Asker; the weights are loaded."""

    async def close(self) -> None:
        """See Asker; the weights belong to the engine."""

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                if batch := self._next_batch():
                    await self._answer(batch)
        finally:
            self._worker = None

    async def _gather(self) -> None:
        """Wait for the next calls of those who were answered together: they come one by one.

        Else there would be two batches in turns, of the first to come and of all others.
        """
        quiet = min(QUIET_SECONDS, QUIET_SHARE * self._took)
        seen, until = 0, self._ended + quiet
        while (waiting := len(self._waiting)) < self._before and (now := perf_counter()) < until:
            if waiting > seen:
                seen, until = waiting, now + quiet
            await asyncio.sleep(quiet / 10)
            until += perf_counter() - now - quiet / 10  # the loop was busy: nobody could come
        self._before = 0

    def _next_batch(self) -> list[_Call]:
        """The calls that came first and sample alike, without those that nobody waits for."""
        self._waiting = [call for call in self._waiting if not call.answer.done()]
        batch: list[_Call] = []
        samples = 0
        for call in self._waiting:
            wanted = sum(request.n for request in call.requests)
            if call.sampling != self._waiting[0].sampling:
                continue
            if batch and samples + wanted > MOST_SAMPLES:
                break
            batch.append(call)
            samples += wanted
        self._waiting = [call for call in self._waiting if call not in batch]
        return batch

    async def _answer(self, batch: list[_Call]) -> None:
        requests = [request for call in batch for request in call.requests]
        began = perf_counter()
        try:
            found = await to_thread.run_sync(self._engine.generate, requests, batch[0].sampling)
        except Exception as error:  # noqa: BLE001 each caller is told
            if len(batch) > 1:  # the fault of one, perhaps, which others must not pay for
                for call in batch:
                    if not call.answer.done():
                        await self._answer([call])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        self._before, self._ended = len(batch), perf_counter()
        took = self._took = self._ended - began
        for call in batch:
            mine, found = found[: len(call.requests)], found[len(call.requests) :]
            if not call.answer.done():
                call.answer.set_result(Answered(mine, began - call.came, took))


class _Held:
    """A session that is open while somebody uses it, and not yet to be closed."""

    def __init__(self, engine: StreamingEngine[Any]) -> None:
        self._context: AbstractAsyncContextManager[Session[Any]] = engine.session()
        self._users = 0
        self._retired = False

    async def open(self) -> _Held:
        self.session = await self._context.__aenter__()
        return self

    async def ask(
        self, requests: Sequence[Request], sampling: SamplingSettings
    ) -> tuple[list[list[Completion]], float]:
        self._users += 1
        try:
            return await ask_within(self.session, requests, sampling)
        finally:
            self._users -= 1
            await self._close_if_done()

    async def retire(self) -> None:
        self._retired = True
        await self._close_if_done()

    async def _close_if_done(self) -> None:
        if self._retired and not self._users:
            await self._context.__aexit__(None, None, None)


class Streamed:
    """Calls over one session, which makes place for a new one every SESSION_SECONDS."""

    def __init__(self, engine: StreamingEngine[Any]) -> None:
        self._engine = engine
        self._held: asyncio.Task[_Held] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, requests: Sequence[Request], sampling: SamplingSettings) -> Answered:
        """See Asker."""
        came = perf_counter()
        if self._held is None:
            self._held = asyncio.create_task(_Held(self._engine).open())
            closing = asyncio.create_task(self._close_later(self._held))
            self._tasks.add(closing)
            closing.add_done_callback(self._tasks.discard)
        held = await asyncio.shield(self._held)
        completions, began = await held.ask(requests, sampling)
        return Answered(completions, began - came, perf_counter() - began)

    async def warm(self) -> None:
        """See Asker: one token, which comes when a server is there and answers as the version."""
        hello = Request([{"role": "user", "content": "Hello."}], seed=0)
        await self.ask([hello], SamplingSettings(temperature=0, max_tokens=1))

    async def close(self) -> None:
        """See Asker."""
        for closing in self._tasks:
            closing.cancel()
        if self._held is not None:
            await (await self._held).retire()

    async def _close_later(self, opening: asyncio.Task[_Held]) -> None:
        try:
            held = await opening
        except Exception:  # noqa: BLE001 who waited for it was told; the next call tries again
            self._held = None
            return
        await asyncio.sleep(SESSION_SECONDS)
        self._held = None
        await held.retire()
