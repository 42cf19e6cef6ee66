"""All benchmarks by name, and files in their published formats."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

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


def find(row: Row) -> Benchmark:
    """The benchmark whose fields a first row has; BadRow if it is none's."""
    for benchmark in BENCHMARKS.values():
        if benchmark.needs.keys() <= row.keys():
            return benchmark
    known = "; ".join(f"{name} ({', '.join(one.needs)})" for name, one in BENCHMARKS.items())
    raise BadRow(1, None, f"no known benchmark has the fields {', '.join(row)}; known: {known}")


def load(path: Path, name: str | None = None) -> tuple[Benchmark, list[Example]]:
    """A benchmark's examples from its published file: JSON array or JSON lines, maybe gzipped.

    `name`: which benchmark; default: the one whose fields the first row has. Raises BadRow for a
    row that cannot be used, KeyError for an unknown name, OSError for a file that cannot be read.
    """
    first = next(rows(path), None)
    if first is None:
        raise BadRow(1, None, "the file is empty")
    benchmark = find(first[1]) if name is None else BENCHMARKS[name]
    examples = list(benchmark.read(rows(path)))
    if not examples:
        raise BadRow(1, None, f"no row of {path.name} can be judged")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise BadRow(1, "id", f"{example.id!r} occurs twice")
        seen.add(example.id)
    return benchmark, examples


def rows(path: Path) -> Iterator[NumberedRow]:
    """Numbered rows of a JSON array, or of JSON lines (split at newline bytes only)."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
        file.seek(0)
        if start == b"[":
            try:
                values = orjson.loads(file.read())
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
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BadRow(number, None, f"not JSON: {error}") from error
