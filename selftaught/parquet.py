"""Rows of a Parquet file, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
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
