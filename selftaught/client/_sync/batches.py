# Made from ../_async by scripts/unasync.py (make unasync): change that one.
"""Batches: many pairs to judge, in the background."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx

from selftaught.client._sync.datasets import Rows, send_lines, send_rows
from selftaught.client._sync.transport import Transport, lines
from selftaught.client._sync.work import Work
from selftaught.client.answers import given, parse, url
from selftaught.client.errors import ApiError
from selftaught.client.files import Progress, Sent
from selftaught.client.waiting import Watch
from selftaught.contracts import BatchOut, BatchResult

_PATH = "/v1/judge/batches"


class Batch(BatchOut, Work):
    """A batch: its fields, as of when it was last asked for, and its results."""

    def _path(self) -> str:
        return url("v1", "judge", "batches", self.id)

    def cancel(self) -> Batch:
        """Stop it; its finished results stay."""
        return self._become(self._transport.post(Batch, self._path() + "/cancel"))

    def results(self, after: int = 0, follow: bool = True) -> Generator[BatchResult]:
        """Results of the lines behind line `after`, in order, as they come; ends with the batch.

        With `follow=False` only those there are by now. To go on later, give the last `line`.
        """
        watch = Watch(self.id)
        while True:
            try:
                ended = (self.refresh()).ended  # before its last results are read
                with self._transport.stream(
                    "GET", self._path() + "/results", params={"after": after}
                ) as response:
                    for line in lines(response):
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
            time.sleep(watch.pause())


class Batches:
    """`client.batches`"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
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
    ) -> Batch:
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
                answer = send_lines(self._transport, _PATH, file, options)
        else:
            answer = send_rows(self._transport, _PATH, pairs, options)
        return self._transport.read(Batch, answer)

    def get(self, batch_id: str) -> Batch:
        """A batch by its id."""
        return self._transport.get(Batch, url("v1", "judge", "batches", batch_id))

    def list(self, *, after: str | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Batches, newest first; those behind `after`, and at most `limit` of them."""
        return self._transport.pages(Batch, _PATH, after=after, limit=limit)
