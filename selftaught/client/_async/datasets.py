"""Datasets: uploads of instructions, labelled pairs, pairs and benchmarks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from selftaught.client._async.transport import AsyncTransport
from selftaught.client.answers import Json, given, plain, url
from selftaught.client.files import Progress, Sent
from selftaught.contracts import DatasetKind, DatasetOut, DatasetRow

Rows = Iterable[BaseModel | Mapping[str, Any]]
_PIECE = 1 << 18
_JSONL = {"Content-Type": "application/x-ndjson"}


class AsyncDatasets:
    """`client.datasets`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def upload(
        self,
        source: str | Path | Rows,
        kind: DatasetKind = "instructions",
        *,
        name: str | None = None,
        column: str | None = None,
        benchmark: str | None = None,
        progress: Progress | None = None,
    ) -> DatasetOut:
        """Upload a file (JSONL, CSV, text or Parquet, gzipped or not), or rows from memory.

        Neither is ever held in memory as a whole. `column`: the field that holds the instruction.
        `benchmark`: which one, of kind `benchmark`, if its fields do not tell. `progress` is called
        with the bytes sent and the bytes of the whole file.
        Raises ApiError, whose `errors` name every bad line; then nothing is kept. OSError.
        """
        fields = given(kind=kind, name=name, column=column, benchmark=benchmark)
        if not isinstance(source, str | Path):
            return await self._upload_rows(source, fields)
        path = Path(source)
        with Sent(path, progress) as file:

            def body() -> dict[str, Any]:
                file.seek(0)
                return {"files": {"file": (path.name, file)}, "data": fields}

            answer = await self._transport.call("POST", "/v1/datasets", body=body)
        return self._transport.read(DatasetOut, answer)

    async def _upload_rows(self, rows: Rows, fields: Json) -> DatasetOut:
        answer = await send_rows(self._transport, "/v1/datasets", rows, fields)
        return self._transport.read(DatasetOut, answer)

    async def get(self, dataset_id: str) -> DatasetOut:
        """A dataset by its id."""
        return await self._transport.get(DatasetOut, url("v1", "datasets", dataset_id))

    def list(
        self, *, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[DatasetOut]:
        """Datasets, newest first; those behind `after`, and at most `limit` of them."""
        return self._transport.pages(DatasetOut, "/v1/datasets", after=after, limit=limit)

    def rows(
        self, dataset_id: str, *, after: int | None = None, limit: int | None = None
    ) -> AsyncIterator[DatasetRow]:
        """Its rows, in the file's order; those behind the one `at` byte `after`."""
        path = url("v1", "datasets", dataset_id) + "/rows"
        return self._transport.pages(DatasetRow, path, "at", after, limit)

    async def delete(self, dataset_id: str) -> None:
        """Delete its data; jobs that name it keep its hash."""
        await self._transport.call("DELETE", url("v1", "datasets", dataset_id))


async def send_rows(transport: AsyncTransport, path: str, rows: Rows, params: Json) -> Json:
    """POST rows as JSONL, each when it is sent. Rows that can be had once only are sent once."""

    async def pieces() -> AsyncIterator[bytes]:
        for row in rows:
            yield json.dumps(plain(row)).encode() + b"\n"

    return await transport.call(
        "POST",
        path,
        params=params,
        headers=_JSONL,
        repeatable=iter(rows) is not rows,
        body=lambda: {"content": pieces()},
    )


async def send_lines(transport: AsyncTransport, path: str, file: Sent, params: Json) -> Json:
    """POST a file of JSONL as it is, piece by piece."""

    async def pieces() -> AsyncIterator[bytes]:
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece

    return await transport.call(
        "POST", path, params=params, headers=_JSONL, body=lambda: {"content": pieces()}
    )
