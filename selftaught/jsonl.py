"""JSON lines on disk: streamed, or fetched one at a time by position, never held all at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from os import SEEK_END
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

Row = dict[str, Any]
OPEN_FILES = 64
"""How many files a Shelf holds open; the one used longest ago is closed."""

Position = tuple[int, int]
"""Where a row stands: index of the file, byte offset of its line."""


def read(path: Path) -> Iterator[Row]:
    """The rows of a file, in order; blank lines are skipped.

    Lines end at a newline byte only: U+2028 inside a string does not split it.
    Raises ValueError naming file and line for a line that is not a JSON object.
    """
    for _, row in read_with_offsets(path):
        yield row


def read_with_offsets(path: Path, offset: int = 0) -> Iterator[tuple[int, Row]]:
    """Like :func:`read` from the line at `offset` on, each row with the offset of its line."""
    with path.open("rb") as file:
        file.seek(offset)
        for number, line in enumerate(file, 1):
            if line.strip():
                yield offset, _parse(line, path, number)
            offset += len(line)


def read_page(
    path: Path, after: int | None, limit: int, max_bytes: int
) -> tuple[list[tuple[int, Row]], bool]:
    """Up to `limit` rows behind the one that begins at `after`, each with where it begins; and
    whether more follow.

    Fewer than `limit` where they are longer than `max_bytes` together; one at least. Raises
    ValueError if no row begins at `after`.
    """
    rows: list[tuple[int, Row]] = []
    with path.open("rb") as file:
        if after is not None:
            nothing = ValueError(f"no row begins at byte {after}")
            if after >= file.seek(0, SEEK_END):  # asked first: a file cannot be that long
                raise nothing
            file.seek(max(after - 1, 0))
            if after > 0 and file.read(1) != b"\n":
                raise nothing
            file.readline()
        offset = first = file.tell()
        while line := file.readline():
            if len(rows) == limit or (rows and offset + len(line) - first > max_bytes):
                return rows, True
            rows.append((offset, _parse(line, path, None)))
            offset += len(line)
    return rows, False


def first_from(path: Path, key: str, name: str = "id") -> int:
    """Where the first row begins whose `name` is `key` or greater, in a file sorted by it.

    The end of the file if there is none. Reads about as many rows as the file's size has bits.
    """
    with path.open("rb") as file:
        # Rows before `low`, where one begins, are smaller; those that begin behind `high` are not.
        low, high = 0, file.seek(0, SEEK_END)
        while low < high:
            middle = (low + high) // 2
            file.seek(middle)
            file.readline()
            begin = file.tell()
            line = file.readline() if begin <= high else b""
            if line and _parse(line, path, None)[name] < key:
                low = begin + len(line)
            else:
                high = middle
        file.seek(low)
        line = file.readline()
        smaller = line and _parse(line, path, None)[name] < key
        return low + len(line) if smaller else low


class Shelf:
    """Rows of several files: walk over all of them, then fetch single ones again by position."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def walk(self) -> Iterator[tuple[Position, Row]]:
        """Every row with its position, file by file."""
        for index, path in enumerate(self._paths):
            for offset, row in read_with_offsets(path):
                yield (index, offset), row

    def fetch(self, position: Position) -> Row:
        """The row at a position that :meth:`walk` gave."""
        index, offset = position
        if index not in self._files:
            if len(self._files) >= OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            self._files[index] = self._paths[index].open("rb")
        self._files.move_to_end(index)
        file = self._files[index]
        file.seek(offset)
        return _parse(file.readline(), self._paths[index], None)


def _parse(line: bytes, path: Path, number: int | None) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path.name}, line {number}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path.name}, line {number}: not a JSON object")
    return row
