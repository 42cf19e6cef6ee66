"""An upload against Postgres's own bulk load of the same rows, interleaved, on one stack.

    python -m benchmarks.ingest [ROWS [SMALL [ROUNDS]]]     1,000,000, 100,000 and 5 by default

One side: POST /v1/datasets to the gateway of an embedded stack, over HTTP, body as JSONL; it ends
when the dataset has its row. The other: the `psql` that came with this stack's Postgres, `\\copy`
from a CSV file of the same rows into a table (dataset, row id, instruction) with a primary key over
dataset and row id, as an upload refuses ids that occur twice; once more without the key. Each side
reads its rows from a file on the same disk. ROUNDS rounds of SMALL rows, medians; then one of ROWS.
With the large one the gateway's resident memory is read from /proc all the while.

What is kept differs: an upload becomes one file and one row of `datasets`, `\\copy` rows of a
table.
"""

from __future__ import annotations

import csv
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import psycopg
from psycopg import conninfo

from benchmarks import machine
from selftaught.stack import postgres
from selftaught.stack.handle import Stack

CHARS = 1000
"""Of an instruction; a row has about 40 bytes more."""
SIDES = ("upload", "copy, key", "copy, no key")
ONLY = frozenset({"postgres", "redis", "migrations", "gateway"})


def rows(count: int) -> Iterator[tuple[str, str]]:
    """(id, instruction): words in random order, all rows different; the same on every call."""
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    text = " ".join("".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(20_000))
    for number in range(count):
        start = rng.randrange(len(text) - CHARS)
        yield f"row-{number}", f"{number} {text[start : start + CHARS]}"[:CHARS]


def write(count: int, folder: Path) -> tuple[Path, Path]:
    """The rows as JSONL and as CSV."""
    lines, table = folder / f"{count}.jsonl", folder / f"{count}.csv"
    with lines.open("wb") as first, table.open("w", newline="") as second:
        writer = csv.writer(second)
        for name, text in rows(count):
            row = {"id": name, "instruction": text}
            first.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            writer.writerow(("ds", name, text))
    return lines, table


class Memory:
    """The resident memory of a process while the block runs: (share of the body sent, MiB)."""

    def __init__(self, pid: int, size: int) -> None:
        self._status, self._size = Path(f"/proc/{pid}/status"), size
        self.sent = 0
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self.before = self._resident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _resident(self) -> float:
        fields = dict(
            line.split(":", 1) for line in self._status.read_text().splitlines() if ":" in line
        )
        return int(fields["VmRSS"].split()[0]) / 1024

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.samples.append((self.sent / self._size, self._resident()))

    def at(self, share: float) -> float:
        """When this share of the body had been sent."""
        return next(found for sent, found in self.samples if sent >= share)


def upload(url: str, path: Path, memory: Memory | None = None) -> float:
    """Seconds until the dataset is there."""

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(1 << 18):
                yield piece
                if memory is not None:
                    memory.sent += len(piece)

    headers = {"Content-Type": "application/x-ndjson", "Content-Length": str(path.stat().st_size)}
    began = time.perf_counter()
    answer = httpx.post(f"{url}/v1/datasets", content=pieces(), headers=headers, timeout=3600)
    seconds = time.perf_counter() - began
    answer.raise_for_status()
    with path.open("rb") as file:
        assert answer.json()["rows"] == sum(1 for _ in file)
    return seconds


def copy(database: str, path: Path, key: bool) -> float:
    """Seconds of psql with one `\\copy`; the table is new, and gone afterwards."""
    primary = ", PRIMARY KEY (dataset_id, row_id)" if key else ""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS copied")
        connection.execute(
            "CREATE TABLE copied (dataset_id text NOT NULL, row_id text NOT NULL, "
            f"instruction text NOT NULL{primary})"
        )
    found = conninfo.conninfo_to_dict(database)
    env = os.environ | {
        "PGHOST": str(found["host"]),
        "PGPORT": str(found["port"]),
        "PGUSER": str(found["user"]),
        "PGPASSWORD": str(found["password"]),
        "PGDATABASE": str(found["dbname"]),
    }
    command = [str(postgres.program("psql")), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    command += ["-c", f"\\copy copied FROM '{path}' WITH (FORMAT csv)"]
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True)
    seconds = time.perf_counter() - began
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE copied")
        connection.execute("CHECKPOINT")  # its writes are not the next side's
    return seconds


def once(side: str, stack: Stack, lines: Path, table: Path) -> float:
    """Seconds of one side."""
    if side == "upload":
        return upload(stack.gateway_url, lines)
    database = stack.database_url.replace("postgresql+psycopg", "postgresql")
    return copy(database, table, key=side == "copy, key")


def told(count: int, seconds: dict[str, float]) -> None:
    """A line for each side."""
    for side, taken in seconds.items():
        ratio = seconds[side] / seconds["upload"]
        beside = "" if side == "upload" else f"   upload/this: {ratio:.2f}"
        print(f"  {side:>12}: {taken:6.2f} s, {count / taken:8.0f} rows/s{beside}", flush=True)


def small(stack: Stack, count: int, rounds: int, folder: Path) -> None:
    """Rounds of all sides, in turn; medians."""
    lines, table = write(count, folder)
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES[number % 3 :] + SIDES[: number % 3]:
            taken[side].append(once(side, stack, lines, table))
    print(f"{count} rows, {lines.stat().st_size / 1e6:.0f} MB, medians of {rounds}:")
    told(count, {side: statistics.median(times) for side, times in taken.items()})


def large(stack: Stack, count: int, folder: Path) -> None:
    """All rows once, with the gateway's memory."""
    lines, table = write(count, folder)
    with Memory(stack.process("gateway").pid, lines.stat().st_size) as memory:
        seconds = {"upload": upload(stack.gateway_url, lines, memory)}
    seconds |= {side: once(side, stack, lines, table) for side in SIDES[1:]}
    print(f"{count} rows, {lines.stat().st_size / 1e6:.0f} MB:")
    told(count, seconds)
    print(
        f"  gateway, resident MiB: {memory.before:.0f} before, {memory.at(0.1):.0f} at 10 % of the "
        f"body, {memory.at(1.0):.0f} at 100 %, {memory.samples[-1][1]:.0f} at the end; "
        f"peak {max(found for _, found in memory.samples):.0f}"
    )


def main() -> None:
    """Print both sizes."""
    given = [int(one) for one in sys.argv[1:]]
    count, few, rounds = [*given, *(1_000_000, 100_000, 5)[len(given) :]]
    print(machine.name("orjson", "uvicorn"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {"SELFTAUGHT_MAX_UPLOAD_BYTES": str(2**31)}
        with Stack(folder / "home", only=ONLY, env=env) as stack:
            upload(stack.gateway_url, write(1000, folder)[0])  # what is loaded at first use
            small(stack, few, rounds, folder)
            large(stack, count, folder)


if __name__ == "__main__":
    main()
