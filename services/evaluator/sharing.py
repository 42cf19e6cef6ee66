"""Work that several callers wait for is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")


class InFlight(Generic[Key, Found]):
    """Equal calls that are in flight at the same time are one; it ends when nobody waits for it."""

    def __init__(self) -> None:
        self._tasks: dict[Key, asyncio.Task[Found]] = {}
        self._waiting: dict[Key, int] = {}

    async def get(self, key: Key, work: Callable[[], Awaitable[Found]]) -> Found:
        """What `work` gives, or what an equal call that is in flight gives."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(_run(work))
            self._waiting[key] = 0
        self._waiting[key] += 1
        try:
            return await asyncio.shield(task)
        finally:
            if self._tasks.get(key) is task:
                self._waiting[key] -= 1
                if task.done() or not self._waiting[key]:
                    task.cancel()
                    del self._tasks[key], self._waiting[key]


class Fresh(Generic[Key, Found]):
    """A look at something that changes: nobody gets what was seen before he came.

    One look runs for a key at a time; all who come meanwhile share the next one.
    """

    def __init__(self, look: Callable[[Key], Awaitable[Found]]) -> None:
        self._look = look
        self._running: dict[Key, asyncio.Task[Found]] = {}
        self._next: dict[Key, asyncio.Task[Found]] = {}

    async def get(self, key: Key) -> Found:
        """What a look finds that begins from now on."""
        task = self._next.get(key)
        if task is None:
            before = self._running.get(key)
            task = asyncio.create_task(self._after(key, before))
            self._next[key] = task
        return await asyncio.shield(task)

    async def _after(self, key: Key, before: asyncio.Task[Found] | None) -> Found:
        if before is not None:
            await asyncio.wait([before])
        task = self._running[key] = self._next.pop(key)
        try:
            return await self._look(key)
        finally:
            if self._running[key] is task:
                del self._running[key]


async def _run(work: Callable[[], Awaitable[Found]]) -> Found:
    return await work()
