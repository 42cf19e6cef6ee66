"""A batch of pairs on the stand-in engine: its memory, its speed, a cancel, and a kill -9.

    python -m benchmarks.batches [PAIRS]        10,000 by default

Three batches of the same pairs. The first runs through; printed are the resident memory of gateway
and evaluator-worker at each tenth of the pairs, and pairs judged in a second. The second is
cancelled in the middle: what it had finished is there. Of the third the worker is killed in the
middle: in the end each line has one result.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.judge_latency import ONLY, ROOT, Judged, questions, register
from selftaught.client import Batch, Client, JobFailed
from selftaught.stack.handle import Stack
from selftaught.stack.spec import StackError
from selftaught.stack.state import free_port

SECONDS = 0.005
"""Of the stand-in engine, for an answer."""
PROCESSES = ("gateway", "evaluator-worker")
Json = dict[str, Any]


@contextmanager
def opened(home: Path) -> Iterator[tuple[Stack, Client]]:
    """A stack with the stand-in engine as the version `judge:0`; quick to notice a lost worker."""
    port = free_port(lambda port: False)
    command = [sys.executable, "-m", "benchmarks.standin", str(port), str(SECONDS)]
    engine = subprocess.Popen(command, cwd=ROOT)
    env = {
        "SELFTAUGHT_ENDPOINTS": json.dumps({"standin": f"http://127.0.0.1:{port}/v1"}),
        "SELFTAUGHT_LEASE_SECONDS": "6",
        "SELFTAUGHT_HEARTBEAT_SECONDS": "1",
        "SELFTAUGHT_RERING_SECONDS": "3",
    }
    try:
        with (
            Stack(home, only=ONLY | {"evaluator-worker"}, env=env) as stack,
            Client(stack.gateway_url) as client,
        ):
            register(client, Judged("smallworld"), "standin", "judge")
            yield stack, client
    finally:
        engine.terminate()
        engine.wait()


def pairs(count: int) -> Iterator[Json]:
    """So many pairs, each with another instruction."""
    for question in islice(questions(), count):
        yield {name: value for name, value in question.items() if name != "cache"}


def start(client: Client, count: int) -> Batch:
    return client.batches.create(pairs(count), model="judge:0", template="smallworld")


def judged(batch: Batch, least: int) -> Batch:
    """The batch once it has this many results, or has ended."""
    while True:
        if batch.refresh().request_counts.completed >= least or batch.ended:
            return batch
        time.sleep(0.05)


def lines(batch: Batch) -> Counter[int]:
    """How many results each line has."""
    return Counter(result.line for result in batch.results(follow=False))


def memory(stack: Stack, name: str) -> float:
    """Resident MiB of a process; 0 while it is started anew."""
    try:
        return float(stack.process(name).memory_info().rss) / 2**20
    except StackError:
        return 0.0


def through(stack: Stack, client: Client, count: int) -> None:
    """The first batch."""
    began = time.perf_counter()
    batch = start(client, count)
    print(f"created in {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    print("  judged   " + "   ".join(f"{name:>16}" for name in PROCESSES) + "   (resident MiB)")
    for tenth in range(1, 11):
        judged(batch, count * tenth // 10)
        there = [f"{memory(stack, name):16.0f}" for name in PROCESSES]
        print(f"  {batch.request_counts.completed:6}   " + "   ".join(there), flush=True)
    seconds = time.perf_counter() - began
    results = lines(batch)
    print(
        f"{batch.state}: {len(results)} lines with a result, "
        f"{results.total() - len(results)} twice; {count / seconds:.0f} pairs/s; "
        f"after reading all results the gateway has {memory(stack, 'gateway'):.0f} MiB"
    )


def cancelled(client: Client, count: int) -> None:
    """The second."""
    batch = start(client, count)
    judged(batch, count // 2).cancel()
    with suppress(JobFailed):  # it was cancelled
        batch.wait()
    results = lines(batch)
    print(
        f"{batch.state}: {batch.request_counts.completed} of {count} were judged, "
        f"{len(results)} lines have a result, {results.total() - len(results)} twice",
        flush=True,
    )


def killed(stack: Stack, client: Client, count: int) -> None:
    """The third."""
    batch = start(client, count)
    at = judged(batch, count // 2).request_counts.completed
    stack.kill("evaluator-worker")
    batch.wait()
    results = lines(batch)
    missing = set(range(1, count + 1)) - set(results)
    again = [one for one in batch.events(follow=False) if one.type == "chunk.requeued"]
    print(
        f"kill -9 after {at}: {batch.state}, {results.total()} results, "
        f"{results.total() - len(results)} twice, {len(missing)} missing; "
        f"{len(again)} chunk was judged again"
    )


def main() -> None:
    """Print what the three batches did."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(machine.name())
    print(f"{count} pairs, both orders, {1000 * SECONDS:.0f} ms an answer", flush=True)
    with tempfile.TemporaryDirectory() as home, opened(Path(home)) as (stack, client):
        through(stack, client, count)
        cancelled(client, count)
        killed(stack, client, count)


if __name__ == "__main__":
    main()
