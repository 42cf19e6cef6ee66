"""Batches: many pairs to judge, in the background."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import anyio
import httpx

from selftaught.client._async.datasets import Rows, send_lines, send_rows
from selftaught.client._async.transport import AsyncTransport, lines
from selftaught.client._async.work import AsyncWork
from selftaught.client.answers import given, parse, url
from selftaught.client.errors import ApiError
from selftaught.client.files import Progress, Sent
from selftaught.client.waiting import Watch
from selftaught.contracts import BatchOut, BatchResult

_PATH = "/v1/judge/batches"


class AsyncBatch(BatchOut, AsyncWork):
    """A batch: its fields, as of when it was last asked for, and its results."""

    def _path(self) -> str:
        return url("v1", "judge", "batches", self.id)

    async def cancel(self) -> AsyncBatch:
        """Stop it; its finished results stay."""
        return self._become(await self._transport.post(AsyncBatch, self._path() + "/cancel"))

    async def results(self, after: int = 0, follow: bool = True) -> AsyncGenerator[BatchResult]:
        """Results of the lines behind line `after`, in order, as they come; ends with the batch.

        With `follow=False` only those there are by now. To go on later, give the last `line`.
        """
        watch = Watch(self.id)
        while True:
            try:
                ended = (await self.refresh()).ended  # before its last results are read
                async with self._transport.stream(
                    "GET", self._path() + "/results", params={"after": after}
                ) as response:
                    async for line in lines(response):
                        watch.heard()
                        result = parse(BatchResult, json.loads(line))
                        after = result.line
                        yield result
            except (httpx.TransportError, ApiError) as error:
                watch.lost(error)
            else:
                watch.heard()
                if ended or not follow:
                    return
            await anyio.sleep(watch.pause())


class AsyncBatches:
    """`client.batches`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        pairs: str | Path | Rows,
        *,
        model: str | None = None,
        template: str | None = None,
        votes: int | None = None,
        both_orders: bool | None = None,
        allow_tie: bool | None = None,
        explain: bool | None = None,
        progress: Progress | None = None,
    ) -> AsyncBatch:
        """Have many pairs judged: a file of JSONL (gzipped or not), or rows from memory.

        A row has the fields of `BatchLine`: instruction (or messages), response_a, response_b, and
        maybe custom_id, reference, rubric. All else is said here, for all of them, as of `judge`.
        `progress` is called with the bytes sent of a file and its bytes in all.
        """
        options = given(
            model=model,
            template=template,
            votes=votes,
            both_orders=both_orders,
            allow_tie=allow_tie,
            explain=explain,
        )
        if isinstance(pairs, str | Path):
            with Sent(Path(pairs), progress) as file:
                answer = await send_lines(self._transport, _PATH, file, options)
        else:
            answer = await send_rows(self._transport, _PATH, pairs, options)
        return self._transport.read(AsyncBatch, answer)

    async def get(self, batch_id: str) -> AsyncBatch:
        """A batch by its id."""
        return await self._transport.get(AsyncBatch, url("v1", "judge", "batches", batch_id))

    def list(
        self, *, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[AsyncBatch]:
        """Batches, newest first; those behind `after`, and at most `limit` of them."""
        return self._transport.pages(AsyncBatch, _PATH, after=after, limit=limit)
