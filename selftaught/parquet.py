"""Rows of a Parquet file, a few at a time, and back."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO

import orjson

from selftaught import parquet_child

MEMORY = 512 * 1024 * 1024
"""Bytes that the process that reads a file may use."""

_MAGIC = b"PAR1"
_ROWS = 256  # written at a time


class NotParquet(ValueError):
    """The file cannot be read as Parquet; the message is fit for a user."""


class TooMuch(ValueError):
    """The rows are larger than the limit."""


def is_parquet(file: BinaryIO) -> bool:
    """Both ends of the file say so; leaves the file at its start."""
    file.seek(0)
    first = file.read(4)
    size = file.seek(0, 2)
    file.seek(max(0, size - 4))
    last = file.read(4)
    file.seek(0)
    return first == last == _MAGIC and size > 8


def rows(
    file: BinaryIO, max_bytes: int, max_row_bytes: int | None = None
) -> Iterator[dict[str, Any] | None]:
    """Every row, without the fields that are null; None for one with more than `max_row_bytes`.

    Read by a process of its own (parquet_child.py). Raises NotParquet, or TooMuch where the rows
    are larger than `max_bytes` together, as JSON; both maybe after some rows. A value that JSON
    does not have is a list.
    """
    with _on_disk(file) as opened:
        most = max_bytes if max_row_bytes is None else max_row_bytes
        command = [sys.executable, "-m", "selftaught.parquet_child", str(most), str(MEMORY)]
        with subprocess.Popen(
            command, stdin=opened, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            assert child.stdout is not None and child.stderr is not None
            try:
                spent = 0
                for line in child.stdout:
                    spent += len(line)
                    if spent > max_bytes:
                        raise TooMuch
                    yield orjson.loads(line)
            finally:
                child.kill()  # if it has not ended by itself
                said = child.stderr.read().decode(errors="replace")
        if child.returncode == parquet_child.UNREADABLE:
            raise NotParquet(f"not a readable Parquet file: {said}")
        if child.returncode:
            raise NotParquet(
                "not a readable Parquet file: its reader ran out of memory, or crashed"
            )


@contextmanager
def _on_disk(file: BinaryIO) -> Iterator[BinaryIO]:
    """The same content, at its start, as a file that another process can read."""
    file.seek(0)
    if isinstance(file, io.BufferedIOBase) and not isinstance(file, (io.BytesIO, gzip.GzipFile)):
        ahead = os.lseek(file.fileno(), 0, os.SEEK_CUR)  # `file` has read so far, and counts on it
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        try:
            yield file
        finally:
            os.lseek(file.fileno(), ahead, os.SEEK_SET)
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


def write(source: Callable[[], Iterator[dict[str, Any]]], file: BinaryIO) -> None:
    """Write rows as Parquet; `source` is called twice, and each time yields the same rows.

    The first pass finds a schema that fits all of them (a field may be null, or missing, for as
    long as it likes); the second writes. Memory holds a few hundred rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([])
    for batch in _batches(source()):
        names = list(dict.fromkeys(name for row in batch for name in row))
        # from_pylist takes the fields of the first row for those of all.
        filled = [{name: row.get(name) for name in names} for row in batch]
        found = pa.Table.from_pylist(filled).schema
        schema = pa.unify_schemas([schema, found], promote_options="permissive")
    with pq.ParquetWriter(file, schema) as writer:
        for batch in _batches(source()):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, _ROWS)):
        yield batch
