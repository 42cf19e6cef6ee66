"""What a gateway's answers take while its database holds 1, 1,000 or 100,000 jobs.

The rows are a real job's (`rows_of`), with iterations, stages, chunks and events, copied by SQL
under other ids, a minute apart, over 200 models. One gateway and one Postgres for each number, all
there at once, asked in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import httpx
import psycopg

from benchmarks.frame import PAIRS, Row, in_turns
from selftaught.stack.handle import Stack

JOBS = (1, 1_000, 100_000)
CALLS = 60
"""Of each kind, of which a turn's figure is the median."""
ONLY = frozenset({"postgres", "redis", "migrations", "gateway"})
AT_MOST = 1.5
WHOLE = ("artifacts", "datasets", "model_versions", "evaluations", "totals")
OF_JOB = {
    "jobs": ("id",),
    "iterations": ("id", "job_id"),
    "stages": ("id", "job_id", "iteration_id"),
    "chunks": ("id", "job_id", "stage_id"),
    "events": ("job_id",),
}
"""Tables that grow with jobs, and their columns that name a job or a part of it."""
Rows = dict[str, bytes]


def rows_of(database_url: str, job_id: str) -> Rows:
    """All rows of a job that has ended, and of what it names, by table, as COPY writes them."""
    found: Rows = {}
    with connect(database_url) as connection:
        for table in (*WHOLE, *OF_JOB):
            column = "id" if table == "jobs" else "job_id"
            which = f" WHERE {column} = '{job_id}'" if table in OF_JOB else ""
            with connection.cursor().copy(f"COPY (SELECT * FROM {table}{which}) TO STDOUT") as copy:
                found[table] = b"".join(bytes(part) for part in copy)
    return found


def fill(database_url: str, rows: Rows, jobs: int) -> None:
    """Put these rows there, and copies of the job until there are so many."""
    with connect(database_url) as connection:
        # No foreign keys and triggers while they are copied: every reference is copied as well.
        connection.execute("SET session_replication_role = replica")
        for table, lines in rows.items():
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(lines)
        for table, names in OF_JOB.items():
            found = connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table]
            )
            columns = [str(name) for (name,) in found]
            values = [f"s.{name}" for name in columns]
            for name in names:
                values[columns.index(name)] = f"s.{name} || lpad(to_hex(n), 6, '0')"
            made = columns.index("created_at")
            values[made] += " - n * interval '1 minute'"
            if "model" in columns:
                values[columns.index("model")] += " || '-' || n % 200"
            connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)}"
                f" FROM {table} AS s, generate_series(1, {jobs - 1}) AS n"
            )
    with connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def connect(database_url: str, autocommit: bool = False) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(database_url.replace("+psycopg", ""), autocommit=autocommit)


def measure(rows: Rows, pairs: int = PAIRS, jobs: Sequence[int] = JOBS) -> tuple[list[Row], str]:
    """The rows of the table, and a note with the sizes of the databases."""
    with ExitStack() as opened:
        sides = {}
        sizes = []
        for number in jobs:
            home = opened.enter_context(tempfile.TemporaryDirectory())
            stack = opened.enter_context(Stack(home, only=ONLY))
            began = time.monotonic()
            fill(stack.database_url, rows, number)
            with connect(stack.database_url) as connection:
                size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
                total = connection.execute(
                    "SELECT sum(reltuples)::bigint FROM pg_class WHERE relname = ANY(%s)",
                    [list(OF_JOB)],
                ).fetchone()
            assert size is not None and total is not None
            print(f"{number:,} jobs: filled in {time.monotonic() - began:.0f} s", flush=True)
            told = f"{number:,} jobs are {total[0]:,} rows, {int(str(size[0])) / 2**20:,.0f} MiB"
            sizes.append(told)
            client = httpx.Client(base_url=stack.gateway_url, timeout=60)
            sides[number] = opened.enter_context(client)
        found = []
        for what, fewest, path in questions(sides[1]):
            asked = {str(n): partial(median_ms, sides[n], path) for n in jobs if n >= fewest}
            figures = in_turns(asked, pairs)
            first, *others = figures
            for other in others:
                peer = "1 job" if first == "1" else f"{int(first):,} jobs"
                told = f"{what}, {int(other):,} jobs"
                row = Row(told, peer, "ms", figures[other], figures[first], at_most=AT_MOST)
                found.append(row)
    return found, "; ".join(sizes)


def questions(client: httpx.Client) -> list[tuple[str, int, str]]:
    """What is asked, from how many jobs on it is the same answer, and the path.

    Pages are compared from 1,000 jobs on: of one job it has one entry.
    """
    job = client.get("/v1/jobs", params={"limit": 1}).raise_for_status().json()["data"][0]
    (_, iteration) = (
        client.get(f"/v1/jobs/{job['id']}/iterations").raise_for_status().json()["data"]
    )
    return [
        ("list, the newest job", 1, "/v1/jobs?limit=1"),
        ("list, a page of 20", 1_000, "/v1/jobs"),
        ("list, a page of 100", 1_000, "/v1/jobs?limit=100"),
        ("list, those that run (none)", 1, "/v1/jobs?state=running"),
        ("list, those of one model (one)", 1, f"/v1/jobs?model={job['model']}"),
        ("list, those of one dataset, newest", 1, f"/v1/jobs?dataset={job['dataset']}&limit=1"),
        ("status of a job", 1, f"/v1/jobs/{job['id']}"),
        ("status of an iteration", 1, f"/v1/iterations/{iteration['id']}"),
    ]


def median_ms(client: httpx.Client, path: str) -> float:
    """Milliseconds of a call, by the median of a turn's."""
    took: list[float] = []
    ask: Callable[[], httpx.Response] = partial(client.get, path)
    ask().raise_for_status()
    for _ in range(CALLS):
        began = time.perf_counter()
        answer = ask()
        took.append(time.perf_counter() - began)
        answer.raise_for_status()
    return 1000 * statistics.median(took)
