"""Calls go on while a version goes live, is rolled back, and an evaluator is killed.

    python -m benchmarks.swap [SECONDS]

Two evaluators; version 0 is the shipped seed by transformers, version 1 answers from the stand-in
engine. Calls begin at a constant rate, whether or not earlier ones have ended. After a quarter of
the time `production` moves to version 1, after a half it is rolled back; then the same again, with
one evaluator killed (kill -9) in between. Printed: failed calls, answers of a version that was not
`production` at any moment of the call, and latencies with and without the swap, in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import machine
from benchmarks.judge_latency import ONLY, ROOT, Judged, questions, register
from selftaught.client import Client
from selftaught.stack.handle import Stack
from selftaught.stack.state import free_port

RATE = 10.0
"""Calls begun in a second."""
ALIAS = "/v1/models/judge/aliases/production"


@dataclass
class Call:
    """One call; times are of time.perf_counter."""

    began: float
    ended: float = 0.0
    status: int = 0
    model: str = ""


@dataclass
class Move:
    """`production` becomes `version` between these times."""

    version: str
    began: float
    ended: float


@dataclass
class Found:
    """What was seen."""

    calls: list[Call]
    moves: list[Move] = field(default_factory=list)

    @property
    def failed(self) -> list[Call]:
        """Calls without a verdict."""
        return [call for call in self.calls if call.status != 200]

    @property
    def wrong(self) -> list[Call]:
        """Calls answered by a version that was not `production` at any moment of the call."""
        return [call for call in self.calls if call.model not in self._allowed(call)]

    def _allowed(self, call: Call) -> set[str]:
        allowed = set()
        for move, following in zip(self.moves, [*self.moves[1:], None], strict=True):
            until = following.ended if following else float("inf")
            if move.began <= call.ended and call.began <= until:
                allowed.add(move.version)
        return allowed


async def load(gateway: str, seconds: float, found: Found) -> None:
    """Calls at a constant rate for so long."""
    source = questions()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as group:

        async def one(body: dict[str, Any], call: Call) -> None:
            async with http.post(f"{gateway}/judge", json=body) as answer:
                call.status = answer.status
                call.model = str((await answer.json()).get("model", ""))
            call.ended = time.perf_counter()

        for question in islice(source, int(seconds * RATE)):
            call = Call(time.perf_counter())
            found.calls.append(call)
            group.create_task(one({**question, "model": "judge:production"}, call))
            await asyncio.sleep(1 / RATE)


def moved(client: Client, found: Found, version: str, move: Callable[[], Any]) -> None:
    """Note when `production` became another version."""
    began = time.perf_counter()
    move()
    found.moves.append(Move(version, began, time.perf_counter()))


async def run(stack: Stack, client: Client, seconds: float, kill: bool, swap: bool = True) -> Found:
    """Calls for so long, with what is to happen meanwhile."""
    found = Found([])
    there = client.call("GET", ALIAS)["version"]
    assert there == "judge:0", there
    found.moves.append(Move(there, 0.0, 0.0))
    loading = asyncio.create_task(load(stack.gateway_url, seconds, found))
    await asyncio.sleep(seconds / 4)
    if swap:
        put = lambda: client.call("PUT", ALIAS, json={"version": 1, "reason": "try"})  # noqa: E731
        await asyncio.to_thread(moved, client, found, "judge:1", put)
    if kill:
        await asyncio.sleep(seconds / 8)
        stack.kill("evaluator2")
        await asyncio.sleep(seconds / 8)
    else:
        await asyncio.sleep(seconds / 4)
    if swap:
        back = lambda: client.call("POST", f"{ALIAS}/rollback")  # noqa: E731
        await asyncio.to_thread(moved, client, found, "judge:0", back)
    await loading
    return found


def told(name: str, found: Found) -> None:
    """One line."""
    cuts = statistics.quantiles([1000 * (c.ended - c.began) for c in found.calls], n=20)
    by = dict(Counter(call.model for call in found.calls))
    print(
        f"{name}: {len(found.calls)} calls, {len(found.failed)} failed, {len(found.wrong)} of a "
        f"wrong version, p50 {cuts[9]:.0f} ms, p95 {cuts[18]:.0f} ms; {by}",
        flush=True,
    )


def open_stack(home: Path, port: int) -> Stack:
    """Two evaluators; the stand-in is at this port."""
    env = {"SELFTAUGHT_ENDPOINTS": json.dumps({"standin": f"http://127.0.0.1:{port}/v1"})}
    return Stack(home, only=ONLY | {"evaluator2"}, evaluators=2, env=env)


def prepare(client: Client) -> None:
    """judge:0 and judge:1; `production` is 0."""
    model = Judged("smallworld", "smallworld", 96)
    for inference in ("local", "standin"):
        register(client, model, inference, name="judge")
    client.call("PUT", ALIAS, json={"version": 0, "reason": "first"})


def main() -> None:
    """Print a line for each of: nothing happens, a swap, a swap and a kill."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    print(machine.name(), flush=True)
    port = free_port(lambda port: False)
    engine = subprocess.Popen([sys.executable, "-m", "benchmarks.standin", str(port)], cwd=ROOT)
    try:
        with (
            tempfile.TemporaryDirectory() as home,
            open_stack(Path(home), port) as stack,
            Client(stack.gateway_url) as client,
        ):
            prepare(client)
            for question in islice(questions(), 20):  # both evaluators have opened it
                client.call("POST", "/judge", json={**question, "model": "judge:0"})
            told("no swap", asyncio.run(run(stack, client, seconds, kill=False, swap=False)))
            told("swap, rollback", asyncio.run(run(stack, client, seconds, kill=False)))
            told("the same, kill -9", asyncio.run(run(stack, client, seconds, kill=True)))
    finally:
        engine.terminate()
        engine.wait()


if __name__ == "__main__":
    main()
