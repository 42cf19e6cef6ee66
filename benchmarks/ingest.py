"""An upload against Postgres's own bulk load and ORM inserts of the same rows, on one stack.

    python -m benchmarks.ingest [ROWS [PAIRS]]    100,000 rows of about 1 KB and 5 turns by default
    python -m benchmarks.ingest large [ROWS]      1,000,000 rows once, with the gateway's memory

*Upload*: POST /v1/datasets to the gateway of an embedded stack, over HTTP, body as JSONL; it ends
when the dataset has its row. *psql*: the one that came with this stack's Postgres, `\\copy` from a
CSV file of the same rows into a table (dataset, row id, instruction) with a primary key over
dataset and row id, as an upload refuses ids that occur twice; once more without the key. *ORM*:
what a plain service would do: parse each line of the same JSONL and `session.add_all` the rows of
that table, with the key, a thousand at a time with a commit after each (SQLAlchemy 2 and psycopg 3,
which send many rows in a statement), in this process, without HTTP. Each side reads its rows from a
file on the same disk and takes its turn on the same Postgres.

What is kept differs: an upload becomes one file and one row of `datasets`, the others rows of a
table.
"""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import orjson
import psycopg
from psycopg import conninfo
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks import machine
from benchmarks.frame import PAIRS, Row, in_turns, publish
from selftaught.stack import postgres
from selftaught.stack.handle import Stack

CHARS = 1000
"""Of an instruction; a row has about 40 bytes more."""
ROWS = 100_000
LARGE = 1_000_000
BATCH = 1000
"""Rows of the ORM's `add_all` and commit."""
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


@contextmanager
def empty_table(database: str, key: bool) -> Iterator[None]:
    """The table that others than an upload fill; it is new, and gone afterwards."""
    primary = ", PRIMARY KEY (dataset_id, row_id)" if key else ""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS copied")
        connection.execute(
            "CREATE TABLE copied (dataset_id text NOT NULL, row_id text NOT NULL, "
            f"instruction text NOT NULL{primary})"
        )
        yield
        connection.execute("DROP TABLE copied")
        connection.execute("CHECKPOINT")  # its writes are not the next side's


def copy(database: str, path: Path, key: bool) -> float:
    """Seconds of psql with one `\\copy`."""
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
    with empty_table(database, key):
        began = time.perf_counter()
        subprocess.run(command, env=env, check=True)
        return time.perf_counter() - began


class Base(DeclarativeBase):
    pass


class Copied(Base):
    """A row, as a service with an ORM would have it."""

    __tablename__ = "copied"
    dataset_id: Mapped[str] = mapped_column(primary_key=True)
    row_id: Mapped[str] = mapped_column(primary_key=True)
    instruction: Mapped[str]


def orm(database: str, path: Path) -> float:
    """Seconds of `add_all`, batch by batch."""
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
    with empty_table(database, key=True):
        began = time.perf_counter()
        with Session(engine) as session, path.open("rb") as file:
            while lines := list(islice(file, BATCH)):
                read = [orjson.loads(line) for line in lines]
                session.add_all(
                    Copied(dataset_id="ds", row_id=row["id"], instruction=row["instruction"])
                    for row in read
                )
                session.commit()
        seconds = time.perf_counter() - began
    engine.dispose()
    return seconds


def against(stack: Stack, count: int, pairs: int, folder: Path) -> None:
    """All sides in turns, and publish."""
    lines, table = write(count, folder)
    database = plain(stack)
    found = in_turns(
        {
            "upload": lambda: count / upload(stack.gateway_url, lines),
            "copy, key": lambda: count / copy(database, table, key=True),
            "copy, no key": lambda: count / copy(database, table, key=False),
            "ORM": lambda: count / orm(database, lines),
        },
        pairs,
    )
    mine, unit = found["upload"], "rows/s"
    what = f"upload of {count:,} rows"
    copied = "psql `\\copy`"
    publish(
        "ingest",
        [
            Row(what, f"{copied}, key", unit, mine, found["copy, key"], at_least=0.5),
            Row(what, f"{copied}, no key", unit, mine, found["copy, no key"]),
            Row(what, "ORM, `add_all`, key", unit, mine, found["ORM"], at_least=5.0),
        ],
        [
            f"{lines.stat().st_size / 1e6:.0f} MB. An upload is sent over HTTP and checked line "
            "by line; it becomes a file and one row of a table. The others make a row of a table "
            "each, which can be queried, and check nothing but the key.",
            f"The ORM commits every {BATCH:,} rows.",
        ],
        ["orjson", "uvicorn", "sqlalchemy", "psycopg"],
    )


def plain(stack: Stack) -> str:
    """The database's URL, as libpq has it."""
    return stack.database_url.replace("postgresql+psycopg", "postgresql")


def large(stack: Stack, count: int, folder: Path) -> None:
    """All rows once, with the gateway's memory."""
    lines, table = write(count, folder)
    with Memory(stack.process("gateway").pid, lines.stat().st_size) as memory:
        seconds = {"upload": upload(stack.gateway_url, lines, memory)}
    seconds["copy, key"] = copy(plain(stack), table, key=True)
    seconds["copy, no key"] = copy(plain(stack), table, key=False)
    print(
        f"{machine.name('orjson', 'uvicorn')}\n{count} rows, {lines.stat().st_size / 1e6:.0f} MB:"
    )
    for side, taken in seconds.items():
        ratio = f"{taken / seconds['upload']:.2f}"
        print(f"  {side:>12}: {taken:6.2f} s, {count / taken:8.0f} rows/s, upload by this {ratio}")
    print(
        f"  gateway, resident MiB: {memory.before:.0f} before, {memory.at(0.1):.0f} at 10 % of the "
        f"body, {memory.at(1.0):.0f} at 100 %, {memory.samples[-1][1]:.0f} at the end; "
        f"peak {max(found for _, found in memory.samples):.0f}"
    )


def main() -> None:
    """The comparison, or the large upload."""
    with_memory = sys.argv[1:2] == ["large"]
    given = [int(one) for one in sys.argv[2 if with_memory else 1 :]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {"SELFTAUGHT_MAX_UPLOAD_BYTES": str(2**31)}
        with Stack(folder / "home", only=ONLY, env=env) as stack:
            upload(stack.gateway_url, write(1000, folder)[0])  # what is loaded at first use
            if with_memory:
                large(stack, (given or [LARGE])[0], folder)
            else:
                count, pairs = [*given, *(ROWS, PAIRS)[len(given) :]]
                against(stack, count, pairs, folder)


if __name__ == "__main__":
    main()
