"""From an uploaded file to dataset rows, line by line; every bad line is named, none is guessed at.

Pure: reads a binary file, yields rows and errors, knows nothing about HTTP or the database. Memory
does not grow with the file: lines are capped, and ids seen so far live in a private SQLite table,
which spills to disk by itself.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import orjson

Format = Literal["jsonl", "csv", "lines"]
Kind = Literal["instructions", "labelled"]

MAX_ID_CHARS = 200
_BOM = b"\xef\xbb\xbf"
_SKIP = 1 << 20


@dataclass(frozen=True)
class LineError:
    """What is wrong with which field of which line (both as the user counts and calls them)."""

    line: int
    field: str | None
    message: str


@dataclass(frozen=True)
class Row:
    """A good row, ready to be written."""

    line: int
    data: dict[str, str]


Fields = Mapping[str, Any]


class BadLine(Exception):
    """A line that cannot even be read."""


class Lines:
    """Decoded lines without their ends, split on \\n only; can go on after raising BadLine."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit = file, limit
        self.number = 0

    def __iter__(self) -> Lines:
        return self

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


def parse(
    file: BinaryIO, form: Format, kind: Kind, column: str | None, max_row_bytes: int
) -> Iterator[Row | LineError]:
    """Every row or error of a file, in order.

    `column` names the field that holds the instruction; default: `instruction`, or else `prompt`.
    Fields that are not asked for are left out.
    """
    lines = Lines(file, max_row_bytes)
    if form == "csv":
        records = _csv(lines, kind, column, max_row_bytes)
    elif form == "jsonl":
        records = _jsonl(lines)
    else:
        records = _plain(lines)
    with closing(sqlite3.connect("")) as seen:
        seen.execute("PRAGMA journal_mode = OFF")
        seen.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        for number, record in records:
            if isinstance(record, LineError):
                yield record
            else:
                yield from _row(number, record, kind, column, seen)


def _row(
    line: int, fields: Fields, kind: Kind, column: str | None, seen: sqlite3.Connection
) -> Iterator[Row | LineError]:
    """The row that a record makes, or everything that is wrong with it."""
    data: dict[str, str] = {}
    errors: list[LineError] = []
    by_prompt = "prompt" in fields and "instruction" not in fields
    wanted = {column or ("prompt" if by_prompt else "instruction"): "instruction"}
    if kind == "labelled":
        wanted |= {"chosen": "chosen", "rejected": "rejected"}
    for field, name in wanted.items():
        found = fields.get(field)
        problem = _text_problem(found) if field in fields else "missing"
        if problem:
            errors.append(LineError(line, field, problem))
        else:
            data[name] = str(found)
    if not errors and kind == "labelled" and data["chosen"] == data["rejected"]:
        errors.append(LineError(line, "rejected", "the same as chosen"))
    subset = fields.get("subset")
    if kind == "labelled" and subset not in (None, ""):
        if problem := _text_problem(subset):
            errors.append(LineError(line, "subset", problem))
        data["subset"] = str(subset)
    row_id = _row_id(line, fields.get("id"))
    if isinstance(row_id, LineError):
        errors.append(row_id)
    else:
        # Also of a row with other errors: its id is taken all the same.
        old = seen.execute("SELECT line FROM seen WHERE id = ?", (row_id,)).fetchone()
        if old is not None:
            errors.append(LineError(line, "id", f"{row_id!r} is already the id of line {old[0]}"))
        else:
            seen.execute("INSERT INTO seen VALUES (?, ?)", (row_id, line))
    if errors:
        yield from errors
    else:
        yield Row(line, {"id": str(row_id), **data})


def _row_id(line: int, given: Any) -> str | LineError:
    if given is None or given == "":
        return f"r{line}"
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    problem = _text_problem(given)
    if problem is None and len(given) > MAX_ID_CHARS:
        problem = f"longer than {MAX_ID_CHARS} characters"
    return LineError(line, "id", problem) if problem else str(given)


def _text_problem(value: Any) -> str | None:
    if not isinstance(value, str):
        return "not a string"
    if not value.strip():
        return "empty"
    if "\0" in value:
        return "contains a NUL character"
    return None


Records = Iterator[tuple[int, Fields | LineError]]


def _jsonl(lines: Lines) -> Records:
    for line in _readable(lines):
        number = lines.number
        if isinstance(line, LineError):
            yield number, line
        elif line.strip():
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
        elif line.strip():
            yield lines.number, {"instruction": line}


def _readable(lines: Lines) -> Iterator[str | LineError]:
    while True:
        try:
            yield next(lines)
        except StopIteration:
            return
        except BadLine as error:
            yield LineError(lines.number, None, str(error))


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
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            problems = list(_header_problems(start, header, kind, column))
            yield from ((start, problem) for problem in problems)
            if problems:
                return
        elif len(cells) > len(header):
            message = f"{len(cells)} cells under {len(header)} columns; quote cells with commas"
            yield start, LineError(start, None, message)
        else:
            yield start, dict(zip(header, cells, strict=False))


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
    if kind == "labelled":
        for name in ("chosen", "rejected"):
            if name not in header:
                yield LineError(line, name, f"no such column; there are: {there}")
