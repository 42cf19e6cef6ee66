"""Work that takes a while: what jobs, batches and evaluations have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Self

import anyio
import httpx
from pydantic import Field

from selftaught.client._async.transport import AsyncHandle, told
from selftaught.client.answers import parse, url
from selftaught.client.errors import ApiError, JobFailed
from selftaught.client.waiting import ENDED, Watch
from selftaught.contracts import EventOut, Page, Problem
from selftaught.sse import MEDIA_TYPE

SILENCE_SECONDS = 60.0
"""A stream of events that says nothing for so long is lost; the gateway speaks every 15 s."""


class AsyncWork(AsyncHandle):
    """Work in the background: its fields are as of when it was last asked for."""

    id: str = Field(description="Its own, also for events.")
    state: str = Field(description="How far it is.")
    error: Problem | None = Field(None, description="Why it failed.")

    @property
    def ended(self) -> bool:
        """Whether it was over when it was last asked for; then it changes no more."""
        return str(self.state) in ENDED

    def _path(self) -> str:
        """Where this is got from."""
        raise NotImplementedError

    async def refresh(self) -> Self:
        """Ask for it again; this object then has the new fields."""
        return self._become(await self._transport.get(type(self), self._path()))

    def _become(self, other: Self) -> Self:
        self.__dict__.update(other.__dict__)
        return self

    async def wait(
        self, timeout: float | None = None, on_event: Callable[[EventOut], object] | None = None
    ) -> Self:
        """This, once it has succeeded.

        `timeout`: seconds; default: for ever. `on_event` is called with every event, from the first
        one on. A gateway that is away for less than five minutes is waited for, too.
        Raises JobFailed if it failed or was cancelled, TimeoutError.
        """
        watch = Watch(self.id, timeout)
        seen = 0
        while True:
            try:
                await self.refresh()
                # Its state first: what happened before its end is then on the pages that follow.
                page = await self._events_page(seen) if on_event else None
            except (httpx.TransportError, ApiError) as error:
                watch.lost(error)
            else:
                watch.heard()
                if page is not None and on_event is not None:
                    for event in page.data:
                        on_event(event)
                        seen = event.seq
                    if page.has_more:
                        continue
                if self.ended:
                    break
            await anyio.sleep(watch.pause())
        if self.state in ("failed", "cancelled"):
            raise JobFailed(self.id, str(self.state), self.error)
        return self

    async def events(self, after: int = 0, follow: bool = True) -> AsyncGenerator[EventOut]:
        """Events numbered above `after`, as they happen, until the end of the work.

        A connection that breaks is made again where it broke, unless the gateway is away for five
        minutes. With `follow=False` only those there are by now.
        """
        watch = Watch(self.id)
        while not follow:
            page = await self._events_page(after)
            for event in page.data:
                yield event
                after = event.seq
            if not page.has_more:
                return
        while True:
            headers = {"Accept": MEDIA_TYPE, "Last-Event-ID": str(after)}
            before = after
            try:
                async with self._transport.stream(
                    "GET", self._events_path(), headers=headers, timeout=SILENCE_SECONDS
                ) as response:
                    if response.status_code == 204:  # over, and nothing left
                        return
                    async for found in told(response):
                        watch.heard()
                        if found is not None:
                            event = parse(EventOut, found[1])
                            after = event.seq
                            yield event
            except (httpx.TransportError, ApiError) as error:
                watch.lost(error)
            else:
                if after > before:  # perhaps it was the last one: 204 says so
                    continue
            await anyio.sleep(watch.pause())

    async def _events_page(self, after: int) -> Page[EventOut]:
        params = {"after": after, "limit": 100}
        return parse(
            Page[EventOut], await self._transport.call("GET", self._events_path(), params=params)
        )

    def _events_path(self) -> str:
        return url("v1", "jobs", self.id, "events")
