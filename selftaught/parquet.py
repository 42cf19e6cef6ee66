"""Rows of a Parquet file, a few at a time, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
_ROWS = 256  # read at a time


class NotParquet(ValueError):
    """The file cannot be read as Parquet; the message is fit for a user."""


def is_parquet(file: BinaryIO) -> bool:
    """Both ends of the file say so; leaves the file at its start."""
    file.seek(0)
    first = file.read(4)
    size = file.seek(0, 2)
    file.seek(max(0, size - 4))
    last = file.read(4)
    file.seek(0)
    return first == last == _MAGIC and size > 8


def rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Every row, without the fields that are null. Raises NotParquet, maybe after some rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(file).iter_batches(_ROWS):
            for row in batch.to_pylist():
                yield {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise NotParquet(f"not a readable Parquet file: {said}") from error


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
