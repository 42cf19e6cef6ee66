"""From a file's bytes to records (field -> value), each with its line; bad lines are named.

Memory does not grow with the file: lines are capped, Parquet is read in batches, and a gzip file is
unpacked to disk under a limit before anything else.
"""

from __future__ import annotations

import csv
import errno
import sqlite3
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import orjson

from selftaught import parquet

Format = Literal["jsonl", "csv", "lines", "parquet"]
Kind = Literal["instructions", "labelled", "pairs"]
Fields = Mapping[str, Any]

_RESPONSES = {"labelled": ("chosen", "rejected"), "pairs": ("response_a", "response_b")}

_BOM = b"\xef\xbb\xbf"
_SKIP = 1 << 20
MAX_BLANK = 10_000_000
"""Lines of a file that are skipped, as nothing is in them; more are errors."""
_PACKED = 1 << 15  # read at a time; a member's end copies the rest of it
MAX_MEMBERS = 100_000
"""Of a gzip file. Block gzip (bgzip), which has the most, has one for every 64 KiB."""


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with which field of which line (both as the user counts and calls them)."""

    line: int
    field: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """A good row, ready to be written."""

    line: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Good rows of lines that follow each other, from `line` on, ready to be written."""

    line: int
    data: list[dict[str, Any]]


Items = Generator[Row | Rows | LineError, None, None]
"""What a file is read as; to be closed by who does not read all of it."""


class Seen:
    """Ids and their lines; in a private SQLite table, which spills to disk by itself."""

    _INSERT = "INSERT OR IGNORE INTO seen VALUES (?, ?)"

    def __init__(self) -> None:
        self._table = sqlite3.connect("")
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def claim(self, name: str, line: int) -> int:
        """The line that has this id: the first that claimed it, which may be `line` itself."""
        with _full_disk():
            if self._table.execute(self._INSERT, (name, line)).rowcount:
                return line
        found = self._table.execute("SELECT line FROM seen WHERE id = ?", (name,)).fetchone()
        return int(found[0])

    def claim_all(self, names: Sequence[str], first: int) -> bool:
        """The same for the ids of lines `first`, `first` + 1, ..; whether all of them were new.

        If not, they may be claimed one by one afterwards, and get the same answers as if this had
        not been tried.
        """
        with _full_disk():
            claims = zip(names, range(first, first + len(names)), strict=True)
            return self._table.executemany(self._INSERT, claims).rowcount == len(names)


@contextmanager
def _full_disk() -> Iterator[None]:
    """SQLite's word for a full disk becomes everybody else's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise OSError(errno.ENOSPC, "no room for the ids of a file") from error


Records = Iterator[tuple[int, Fields | LineError]]


class TooLarge(Exception):
    """Unpacked, the file is larger than the limit."""


class NotGzip(Exception):
    """It begins like a gzip file, and then it is none, or ends too early."""


def unpacked(file: BinaryIO, limit: int, folder: Path) -> BinaryIO:
    """The file itself, or, if it is gzipped, its content in a nameless file below `folder`.

    Unpacks at most `limit` bytes. Raises TooLarge, NotGzip.
    """
    file.seek(0)
    magic = file.read(2)
    file.seek(0)
    if magic != b"\x1f\x8b":
        return file
    out = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (the caller closes it)
    size = 0
    try:
        for piece in _inflated(file):
            size += len(piece)
            if size > limit:
                raise TooLarge
            out.write(piece)
    except zlib.error as error:
        out.close()
        raise NotGzip(str(error)) from error
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """The content of all members, in pieces of at most a megabyte; zeros at the end are padding.

    Unlike gzip.GzipFile it counts members: a million empty ones cost minutes and are 20 MB.
    """
    packed = file.read(_PACKED)
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not packed and not (packed := file.read(_PACKED)):
                raise NotGzip("it ends too early")
            if piece := member.decompress(packed, _SKIP):
                yield piece
            packed = member.unconsumed_tail
        packed = member.unused_data.lstrip(b"\0")
        while not packed:
            if not (more := file.read(_PACKED)):
                return
            packed = more.lstrip(b"\0")
    raise NotGzip(f"more than {MAX_MEMBERS} members")


def records(
    file: BinaryIO,
    form: Format,
    kind: Kind,
    column: str | None,
    max_row_bytes: int,
    max_bytes: int,
) -> Records:
    """Every record or error of a file, in order. A Parquet file is known by its magic, too.

    `max_bytes`: what a Parquet file may unpack to; raises TooLarge.
    """
    if form == "parquet" or parquet.is_parquet(file):
        return _parquet(file, max_row_bytes, max_bytes)
    lines = Lines(file, max_row_bytes)
    if form == "csv":
        return _csv(lines, kind, column, max_row_bytes)
    return jsonl(lines) if form == "jsonl" else _plain(lines)


class BadLine(Exception):
    """A line that cannot even be read."""


class Lines:
    """Decoded lines without their ends, split on \\n only; can go on after raising BadLine."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit = file, limit
        self.number = self._blank = 0

    def __iter__(self) -> Lines:
        return self

    def blank(self) -> LineError | None:
        """Nothing is in this line, which is skipped; or, after MAX_BLANK such lines, an error."""
        self._blank += 1
        if self._blank <= MAX_BLANK:
            return None
        return LineError(self.number, None, f"empty, as {MAX_BLANK} lines before are")

    def __next__(self) -> str:
        raw = self._file.readline(self._limit + 5)  # room for a BOM and \r\n
        if not raw:
            raise StopIteration
        self.number += 1
        ended = raw.endswith(b"\n")
        if self.number == 1:
            raw = raw.removeprefix(_BOM)
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > self._limit:
            while not ended and (rest := self._file.readline(_SKIP)):
                ended = rest.endswith(b"\n")
            raise BadLine(f"longer than {self._limit} bytes")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadLine(f"not valid UTF-8 (byte {error.start + 1})") from error


def jsonl(lines: Lines) -> Records:
    """Every JSON object, or what is wrong with a line; blank lines are skipped."""
    for line in _readable(lines):
        number = lines.number
        if isinstance(line, LineError):
            yield number, line
        else:
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, LineError(number, None, f"not JSON: {error.msg}")
                continue
            if isinstance(value, dict):
                yield number, value
            else:
                yield number, LineError(number, None, "not a JSON object")


def _plain(lines: Lines) -> Records:
    for line in _readable(lines):
        if isinstance(line, LineError):
            yield lines.number, line
        else:
            yield lines.number, {"instruction": line}


def _readable(lines: Lines) -> Iterator[str | LineError]:
    """Lines in which there is something."""
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except BadLine as error:
            yield LineError(lines.number, None, str(error))
            continue
        if line.strip():
            yield line
        elif problem := lines.blank():
            yield problem


class _CsvLines:
    """Lines for csv.reader, with a cap on the bytes of one row however many lines it spans."""

    def __init__(self, lines: Lines, limit: int) -> None:
        self._lines, self._limit = lines, limit
        self._spent = 0
        self.started = 1

    def start_row(self) -> None:
        self._spent, self.started = 0, self._lines.number + 1

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._spent += len(line.encode()) + 1
        if self._spent > self._limit + 1:
            raise BadLine(f"the row is longer than {self._limit} bytes; is a quote left open?")
        return line + "\n"


def _csv(lines: Lines, kind: Kind, column: str | None, limit: int) -> Records:
    """Rows as dictionaries; a line number is that of the line on which the row starts."""
    csv.field_size_limit(max(csv.field_size_limit(), limit))  # rows are capped before fields
    feed = _CsvLines(lines, limit)
    reader = csv.reader(feed, strict=True)
    header: list[str] | None = None
    while True:
        feed.start_row()
        start = feed.started
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (BadLine, csv.Error) as error:
            yield start, LineError(start, None, str(error))
            if lines.number > start or header is None:
                return  # inside a quoted cell: what follows cannot be told apart
            continue
        if not cells:
            if problem := lines.blank():
                yield start, problem
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            problems = list(_header_problems(start, header, kind, column))
            yield from ((start, problem) for problem in problems)
            if problems:
                return
        elif len(cells) != len(header):
            message = f"{len(cells)} cells under {len(header)} columns"
            if len(cells) > len(header):
                message += "; quote cells with commas"
            yield start, LineError(start, None, message)
        else:
            yield start, dict(zip(header, cells, strict=True))


def _header_problems(
    line: int, header: list[str], kind: Kind, column: str | None
) -> Iterator[LineError]:
    if len(set(header)) < len(header):
        yield LineError(line, None, "a column name occurs twice")
    there = ", ".join(header)[:200]
    if column is not None and column not in header:
        yield LineError(line, column, f"no such column; there are: {there}")
    elif column is None and not {"instruction", "prompt"} & set(header):
        yield LineError(line, "instruction", f"no such column (nor prompt); there are: {there}")
    for name in _RESPONSES.get(kind, ()):
        if name not in header:
            yield LineError(line, name, f"no such column; there are: {there}")


def _parquet(file: BinaryIO, max_row_bytes: int, max_bytes: int) -> Records:
    """Rows by number from 1."""
    number = 0
    try:
        for number, row in enumerate(parquet.rows(file, max_bytes, max_row_bytes), 1):
            if row is None:
                yield number, LineError(number, None, f"longer than {max_row_bytes} bytes")
            else:
                yield number, row
    except parquet.NotParquet as error:
        yield number + 1, LineError(number + 1, None, str(error))
    except parquet.TooMuch as error:
        raise TooLarge from error
