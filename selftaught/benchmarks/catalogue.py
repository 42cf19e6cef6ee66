"""All benchmarks by name, and files in their published formats."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from selftaught import parquet
from selftaught.benchmarks import (
    helpsteer2,
    judgebench,
    llmbar,
    mtbench,
    pairs,
    rewardbench,
    rewardbench2,
)
from selftaught.benchmarks.base import BadRow, Benchmark, Example, NumberedRow, Row

MAX_BYTES = 256 * 1024 * 1024
"""Of a benchmark's file, unzipped: its examples are held in memory."""

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        rewardbench.BENCHMARK,
        rewardbench2.BENCHMARK,
        mtbench.BENCHMARK,
        judgebench.BENCHMARK,
        helpsteer2.BENCHMARK,
        llmbar.BENCHMARK,
        pairs.BENCHMARK,  # last: its fields occur in others
    )
}

COMMON = {"id", "prompt", "instruction", "subset", "source", "question", "label", "input"}
"""Fields that say nothing about where a row is from."""


def find(row: Row) -> Benchmark:
    """The benchmark whose fields a first row has; BadRow if it is none's.

    A row with a field that only one benchmark has, and all but one or two of its others, is one of
    that benchmark with something missing: it is refused, not taken for plain pairs.
    """
    *published, plain = BENCHMARKS.values()
    for benchmark in published:
        if benchmark.needs.keys() <= row.keys():
            return benchmark
    has_pair = plain.needs.keys() <= row.keys()
    for benchmark in published:
        others = {
            field for one in BENCHMARKS.values() if one is not benchmark for field in one.needs
        }
        missing = benchmark.needs.keys() - row.keys()
        own = (benchmark.needs.keys() & row.keys()) - others - COMMON
        alike = not has_pair or plain.needs.keys() <= benchmark.needs.keys()
        if own and alike and len(missing) <= 2:
            detail = f"missing; the other fields are those of {benchmark.name} (if it is not that, "
            raise BadRow(1, min(missing), detail + "name the benchmark)")
    if has_pair:
        return plain
    known = "; ".join(f"{name} ({', '.join(one.needs)})" for name, one in BENCHMARKS.items())
    raise BadRow(1, None, f"no known benchmark has the fields {', '.join(row)}; known: {known}")


def load(source: Path | BinaryIO, name: str | None = None) -> tuple[Benchmark, list[Example]]:
    """A benchmark's examples from its published file: JSON array or lines, gzipped, or Parquet.

    `name`: which benchmark; default: the one whose fields the first row has. Raises BadRow for a
    row that cannot be used, KeyError for an unknown name, OSError for a file that cannot be read.
    An open file must be seekable.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return load(file, name)
    first = next(rows(source), None)
    if first is None:
        raise BadRow(1, None, "the file is empty")
    benchmark = find(first[1]) if name is None else BENCHMARKS[name]
    examples = list(benchmark.read(rows(source)))
    if not examples:
        raise BadRow(1, None, "no row can be judged")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise BadRow(1, "id", f"{example.id!r} occurs twice")
        seen.add(example.id)
    return benchmark, examples


def rows(file: BinaryIO) -> Iterator[NumberedRow]:
    """Numbered rows of a JSON array, of JSON lines (split at newline bytes only), of Parquet."""
    file.seek(0)
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        yield from _rows(cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadRow(1, None, f"not a whole gzip file: {error}") from error


def _rows(file: BinaryIO) -> Iterator[NumberedRow]:
    if parquet.is_parquet(file):
        try:
            for number, row in enumerate(parquet.rows(file, MAX_BYTES), 1):
                if row is None:
                    raise BadRow(number, None, f"longer than {MAX_BYTES} bytes")
                yield number, row
        except parquet.NotParquet as error:
            raise BadRow(1, None, str(error)) from error
        except parquet.TooMuch as error:
            raise BadRow(1, None, f"its rows have more than {MAX_BYTES} bytes") from error
        return
    start = file.read(1)
    while start.isspace():
        start = file.read(1)
    file.seek(0)
    if start == b"[":
        content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadRow(1, None, f"more than {MAX_BYTES} bytes; send JSON lines")
        try:
            values = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise BadRow(1, None, f"not JSON: {error}") from error
        numbered: Iterator[tuple[int, object]] = iter(enumerate(values, 1))
    else:
        numbered = _lines(file)
    for number, value in numbered:
        if not isinstance(value, dict):
            raise BadRow(number, None, "not a JSON object")
        yield number, value


def _lines(file: Iterable[bytes]) -> Iterator[tuple[int, object]]:
    size = 0
    for number, line in enumerate(file, 1):
        if (size := size + len(line)) > MAX_BYTES:
            raise BadRow(number, None, f"the file is larger than {MAX_BYTES} bytes")
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BadRow(number, None, f"not JSON: {error}") from error
