"""The largest load that this machine carries: thousands of workers' worth of leases.

    python -m benchmarks.leases

The real kernel (claim, renew, finish), Postgres, outbox, relay and Redis; stand-in work: a worker
waits. 100, then 1,000, then 5,000 simulated workers hold a chunk each and renew its lease every
SELFTAUGHT_HEARTBEAT_SECONDS (5), and at every number 20 of them a second finish theirs and take
another: the kernel's announcement through Redis, a claim, the result with an artifact's row, an
event. Each job has 32 of them. Simulated workers are 16 threads in two processes, and these,
Postgres, Redis and the relay share the machine. Then 16 workers whose work takes no time, on 16
jobs and on one: every chunk of a job locks that job's row, and messages of many jobs come 32 of a
job at a time, so that workers meet at the same row in both.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from redis import Redis

from benchmarks.frame import PAIRS, Row, publish
from selftaught import tenancy
from selftaught.artifacts import Published
from selftaught.contracts import State
from selftaught.database import transaction
from selftaught.database.tables import Job
from selftaught.ids import new_id
from selftaught.settings import get_settings
from selftaught.stack.handle import Stack
from selftaught.work import pipeline
from selftaught.work.kernel import Lease, Result, claim, finish, renew

LEVELS = (100, 1_000, 5_000)
CLAIMS = 20.0
"""A second, at every level."""
WINDOW = 4.0
"""Seconds of a measurement; PAIRS of them at each level."""
PROCESSES, THREADS = 2, 8
ANNOUNCED = 32
"""Chunks of a stage that wait or are held at once (selftaught.work.pipeline)."""
CHUNKS = 2_000
"""Of each job: more than can be done."""
ONLY = frozenset({"postgres", "redis", "migrations", "relay"})
QUEUE = "evaluator"
FOREVER = float("inf")


@dataclass
class Counted:
    """What a process's workers did in a window."""

    claims: list[float] = field(default_factory=list)
    """Seconds of each."""
    beats: list[float] = field(default_factory=list)
    """Seconds that each came late."""
    finished: int = 0
    lost: int = 0


class Fleet:
    """Simulated workers in this process."""

    def __init__(self) -> None:
        self.settings = get_settings()
        self.lock = threading.Lock()
        self.idle = 0
        self.held = 0
        self.done_at: dict[str, float] = {}
        self.due: list[tuple[float, int, Lease]] = []
        self.turn = itertools.count()
        self.counted = Counted()
        self.no_work = False
        for number in range(THREADS):
            threading.Thread(target=self._run, args=[number], daemon=True).start()

    def plan(self, jobs: int) -> None:
        """Add jobs of many chunks, as a gateway does."""
        for _ in range(jobs):
            with tenancy.inside(tenancy.DEFAULT), transaction() as session:
                job = Job(
                    id=new_id("job"),
                    kind="batch",
                    state=State.PENDING,
                    model="leases",
                    recipe={"name": "leases"},
                )
                session.add(job)
                pipeline.start_job(session, job, [{} for _ in range(CHUNKS)])

    def rush(self) -> None:
        """As many workers as threads, whose work takes no time."""
        with self.lock:
            self.no_work, self.idle = True, THREADS

    def grow(self, workers: int) -> None:
        """Have so many hold a chunk; returns when they do."""
        with self.lock:
            self.idle += workers - self.held - self.idle
        while self.held < workers:
            time.sleep(0.05)

    def window(self, seconds: float, rate: float) -> Counted:
        """What happens in so many seconds, while `rate` chunks a second are finished."""
        with self.lock:
            self.counted = Counted()
            ids = random.sample(sorted(self.done_at), min(len(self.done_at), round(rate * seconds)))
            now = time.monotonic()
            for chunk_id in ids:
                self.done_at[chunk_id] = now + random.uniform(0, seconds)
            again = [(min(at, self.done_at[one.chunk_id]), n, one) for at, n, one in self.due]
            heapq.heapify(again)
            self.due = again
        time.sleep(seconds)
        with self.lock:
            return self.counted

    def _run(self, number: int) -> None:
        redis = Redis.from_url(self.settings.redis_url)
        while True:
            with self.lock:
                now = time.monotonic()
                ready = bool(self.due) and self.due[0][0] <= now
                if number == 0 and self.idle > 0:  # what is late must not keep all from claiming
                    ready = False
                taken = heapq.heappop(self.due) if ready else None
                wants = taken is None and self.idle > 0
                self.idle -= wants
            if taken is not None:
                self._keep(*taken)
            elif not wants or not self._take(redis, f"worker@simulated:{number}"):
                with self.lock:
                    self.idle += wants
                time.sleep(0.005)

    def _take(self, redis: Redis, owner: str) -> bool:
        """Claim the chunk that the next message announces, as a Celery worker does."""
        message = redis.rpop(QUEUE)
        if not isinstance(message, bytes):
            return False
        body = base64.b64decode(json.loads(message)["body"])
        (chunk_id,) = json.loads(body)[0]
        began = time.monotonic()
        lease = claim(chunk_id, owner)
        now = time.monotonic()
        if lease is None:
            return False
        with self.lock:
            self.counted.claims.append(now - began)
            self.done_at[chunk_id] = now if self.no_work else FOREVER
            self.held += 1
            first = 0.0 if self.no_work else random.random() * self.settings.heartbeat_seconds
            heapq.heappush(self.due, (now + first, next(self.turn), lease))
        return True

    def _keep(self, due: float, turn: int, lease: Lease) -> None:
        """Renew the lease, or finish, which ever is due."""
        if self.done_at[lease.chunk_id] <= time.monotonic():
            path = lease.path(f"leases-{new_id('art')}")
            made = Published(kind="results", path=path, sha256="0" * 64, bytes=65_536, rows=128)
            counts = {"completed": 128, "prompt_tokens": 90_000, "tokens": 30_000}
            with tenancy.inside(lease.project):
                alive = finish(lease, Result(counts=counts, artifact=made))
            with self.lock:
                self.counted.finished += alive
                self._gone(lease, alive)
            return
        late = time.monotonic() - due
        alive = renew(lease)
        with self.lock:
            if not alive:
                self._gone(lease, alive)
                return
            self.counted.beats.append(late)
            at = due + self.settings.heartbeat_seconds
            if at < time.monotonic():  # as a worker's thread, which waits after each
                at = time.monotonic() + self.settings.heartbeat_seconds
            heapq.heappush(self.due, (min(at, self.done_at[lease.chunk_id]), turn, lease))

    def _gone(self, lease: Lease, alive: bool) -> None:
        del self.done_at[lease.chunk_id]
        self.held -= 1
        self.idle += 1
        self.counted.lost += not alive


def serve(orders: Connection) -> None:
    """A process of simulated workers: does what it is told."""
    fleet = Fleet()
    while True:
        what, *given = orders.recv()
        orders.send(getattr(fleet, what)(*given))


def main() -> None:
    """Measure and publish."""
    with fleets_of_a_stack() as (stack, fleets):
        rows, notes = held(stack, fleets)
    told = []
    for jobs in (16, 1):
        with fleets_of_a_stack() as (stack, fleets):
            told.append(saturated(stack, fleets, jobs))
    rows.append(Row("chunks a second, of one job", "16 jobs", "1/s", told[1][0], told[0][0]))
    notes.append(
        "Work that takes no time, 16 workers: "
        + "; ".join(
            f"{jobs} job{'s' * (jobs > 1)} {statistics.median(speeds):.0f} chunks/s, Postgres "
            f"{cpu:.2f} cores"
            for jobs, (speeds, cpu) in zip((16, 1), told, strict=True)
        )
    )
    publish("leases", rows, notes, packages=["sqlalchemy", "psycopg", "celery", "redis"])


class Fleets:
    """The processes of simulated workers."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.lines: list[Connection] = []
        for _ in range(PROCESSES):
            mine, theirs = context.Pipe()
            context.Process(target=serve, args=[theirs], daemon=True).start()
            self.lines.append(mine)

    def ask(self, what: str, *given: float) -> list[Any]:
        """Order all processes, and wait for all."""
        for line in self.lines:
            line.send((what, *given))
        return [line.recv() for line in self.lines]

    def plan(self, jobs: int) -> None:
        """By the first process: one that plans as a gateway does."""
        self.lines[0].send(("plan", jobs))
        self.lines[0].recv()


@contextmanager
def fleets_of_a_stack() -> Iterator[tuple[Stack, Fleets]]:
    """A fresh database, and processes that know it."""
    with tempfile.TemporaryDirectory() as home, Stack(home, only=ONLY) as stack:
        known = {"DATABASE_URL": stack.database_url, "REDIS_URL": stack.redis_url}
        os.environ |= known | {"SELFTAUGHT_HOME": home}
        fleets = Fleets()
        for name in known:
            del os.environ[name]  # another stack must not think that it has a Postgres
        try:
            yield stack, fleets
        finally:
            for process in multiprocessing.active_children():
                process.kill()
                process.join()


def held(stack: Stack, fleets: Fleets) -> tuple[list[Row], list[str]]:
    """Windows at each level."""
    p95: dict[int, list[float]] = {level: [] for level in LEVELS}
    beats: dict[int, list[float]] = {level: [] for level in LEVELS}
    notes = []
    jobs = 0
    for level in LEVELS:
        wanted = -(-level // ANNOUNCED) + 1
        fleets.plan(wanted - jobs)
        jobs = wanted
        began = time.monotonic()
        fleets.ask("grow", level // PROCESSES)
        ramp = time.monotonic() - began
        print(f"{level:,} leases held after {ramp:.0f} s", flush=True)
        cpu = cpu_seconds(stack)
        found: list[Counted] = []
        for _ in range(PAIRS):
            window = fleets.ask("window", WINDOW, CLAIMS / PROCESSES)
            found += window
            claims = [one for part in window for one in part.claims]
            p95[level].append(1000 * quantile(claims, 0.95))
            beats[level].append(sum(len(part.beats) for part in window) / WINDOW)
        used = {name: now - cpu[name] for name, now in cpu_seconds(stack).items()}
        notes.append(level_note(level, ramp, found, used))
        print(notes[-1], flush=True)
    least, *others = LEVELS
    rows = [
        Row(f"claim, p95, {level:,} leases held", f"{least} held", "ms", p95[level], p95[least])
        for level in others
    ]
    heartbeat = 5.0
    rows += [
        Row(
            f"heartbeats, {level:,} leases held",
            "what is due",
            "1/s",
            beats[level],
            [level / heartbeat] * PAIRS,
        )
        for level in LEVELS
    ]
    return rows, notes


def level_note(level: int, ramp: float, found: list[Counted], cpu: dict[str, float]) -> str:
    """A level's absolute figures."""
    seconds = WINDOW * PAIRS
    claims = [one for part in found for one in part.claims]
    late = [one for part in found for one in part.beats]
    finished, lost = sum(part.finished for part in found), sum(part.lost for part in found)
    cores = ", ".join(f"{name} {used / seconds:.2f}" for name, used in cpu.items())
    return (
        f"{level:,} leases (taken in {ramp:.0f} s): {len(claims) / seconds:.0f} claims/s, p50 "
        f"{1000 * quantile(claims, 0.5):.0f} and p95 {1000 * quantile(claims, 0.95):.0f} ms; "
        f"{len(late) / seconds:.0f} heartbeats/s, late by {1000 * quantile(late, 0.5):.0f} ms, "
        f"p95 {1000 * quantile(late, 0.95):.0f}, at most {max(late, default=0):.1f} s; "
        f"{finished / seconds:.0f} chunks/s finished; {lost} leases lost; cores: {cores}"
    )


def saturated(stack: Stack, fleets: Fleets, jobs: int) -> tuple[list[float], float]:
    """Chunks a second of workers without work, window by window, and Postgres's cores."""
    fleets.plan(jobs)
    fleets.ask("rush")
    fleets.ask("window", WINDOW, 0.0)
    before = cpu_seconds(stack)["postgres"]
    speeds = []
    for _ in range(PAIRS):
        counted = fleets.ask("window", WINDOW, 0.0)
        speeds.append(sum(part.finished for part in counted) / WINDOW)
    cores = (cpu_seconds(stack)["postgres"] - before) / (WINDOW * PAIRS)
    print(f"{jobs} jobs: {speeds} chunks/s, Postgres {cores:.2f} cores", flush=True)
    return speeds, cores


def quantile(values: list[float], share: float) -> float:
    """0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """What the servers have used so far, with their children."""
    used = {}
    for name in ("postgres", "redis", "relay"):
        parent = stack.process(name)
        times = [parent.cpu_times(), *(child.cpu_times() for child in parent.children())]
        used[name] = sum(one.user + one.system for one in times)
    return used


if __name__ == "__main__":
    main()
