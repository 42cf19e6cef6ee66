"""The gateway against bare FastAPI routes that answer the same: a read with a key, and /judge.

    python -m benchmarks.gateway [PAIRS [SECONDS]]      5 turns of 4 seconds a side by default

*Read*: GET /v1/jobs/{id} of a job that waits for workers, with an API key. Ours looks the job, its
iterations and its stages up in Postgres, as the key's project may see them, for every request. The
bare route returns a pydantic model of the same JSON that it was started with.
*Judge*: POST /judge, both orders, greedy, no cache, on benchmarks/standin.py with no time of its
own. Ours is gateway and evaluator: two processes. The bare route takes the same body, asks the same
engine for both orders with aiohttp, reads both verdicts and returns the same JSON, in one process.
A second one does not even ask the engine.

Each side is one process of uvicorn with the same options (its log of requests included) and the
same environment, and is asked over 16 connections by a generator (benchmarks/load.py) that knows
its requests beforehand. All of it shares the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, repeat
from pathlib import Path
from typing import Any

import httpx

from benchmarks import load
from benchmarks.frame import PAIRS, ROOT, Row, in_turns, publish
from benchmarks.judge_latency import ONLY, Judged, questions, register
from selftaught.client import Client
from selftaught.stack.handle import Stack
from selftaught.stack.state import free_port

SECONDS = 4.0
CONNECTIONS = 16
INSTRUCTIONS = ROOT / "seeds" / "smallworld" / "data" / "instructions.jsonl"
BARE = "bare FastAPI route"
PROFILE = (
    "py-spy on the read (one connection, shares of the interpreter's time): Postgres by SQLAlchemy "
    "was 58 % (results 16, transaction and project 13, iterations 11, job 11, stages 8). Changed "
    "for it: queries made once instead of anew for each request, none for results before a gate "
    "has succeeded (as here), set_config straight to the driver, the JSON written where the rows "
    "are read instead of checked in a second thread. CPU of a read in the gateway: 5.95 ms before, "
    "2.72 after; 1.75 times the requests/s, then 1.84 (five pairs in turns each, busy machine). A "
    "job past its first gate asks one query more than this one. Before that, connections "
    "that stay and the query of the progress made once had given 1.6 to 2 times. Left: "
    "43 % Postgres (transaction and project 16, job 13, stages 8, iterations 6), 6 % a thread for "
    "it, 5 % from rows to JSON, the rest HTTP. A route without a database has the last only.",
    "py-spy on /judge (16 connections): in the gateway routing was 14 %, and in both processes "
    "single lines that only allocate had up to 9 %: full garbage collections, gone once there was "
    "less to look at. Changed for it: /judge is tried as the first route (6 us instead of 120 to "
    "150); what a service was started with is frozen (1.12 times the requests/s by itself, four "
    "pairs; on the read no difference was found; the bare routes are started by the same program, "
    "so theirs is frozen, too); a ruling is not taken apart and checked again (not measured by "
    "itself). Together 1.28 times, then 1.30 (five pairs in turns each, busy machine); CPU of a "
    "call in the gateway 1.30 ms before and 0.92 after, in the evaluator 1.52 and 1.21. "
    "Left in the gateway: "
    "25 % layers around the route, 18 % asking the evaluator, 18 % dependencies and the body's "
    "check, 12 % sending and the log, 7 % watching whether the client leaves; in the evaluator "
    "38 % HTTP of its own, 27 % asking the engine, 21 % the judgment, 5 % looking the alias up.",
)
"""What profiles have shown, what was changed for it, and what is left."""


def main() -> None:
    """Measure and publish."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        home = Path(name)
        engine = f"http://127.0.0.1:{free_port(lambda port: False)}"
        stack.enter_context(standin(engine))
        env = {"SELFTAUGHT_ENDPOINTS": json.dumps({"standin": f"{engine}/v1"})}
        platform = stack.enter_context(Stack(home, only=ONLY, env=env))
        job, key = prepared(platform)
        read = load.request("GET", f"/v1/jobs/{job}", headers={"Authorization": f"Bearer {key}"})
        question = httpx.post(f"{platform.gateway_url}/judge", json=next(questions())).json()
        url = stack.enter_context(bare(platform, job, question, f"{engine}/v1", home))
        measure(platform.gateway_url, url, read, key, pairs, seconds)


@contextmanager
def standin(url: str) -> Iterator[None]:
    """The engine that answers at once."""
    command = [sys.executable, "-m", "benchmarks.standin", url.rpartition(":")[2], "0"]
    with running(command, dict(os.environ), f"{url}/count"):
        yield


@contextmanager
def bare(
    platform: Stack, job: str, answer: dict[str, Any], engine: str, home: Path
) -> Iterator[str]:
    """The peer, started as the gateway was, but for app and port."""
    gateway = platform.process("gateway")
    port = str(free_port(lambda port: False))
    command = gateway.cmdline()
    command[command.index("services.api.main:app")] = "benchmarks.bare_api:app"
    command[command.index("--port") + 1] = port
    env = gateway.environ() | {
        "BARE_JOB": httpx.get(f"{platform.gateway_url}/v1/jobs/{job}").text,
        "BARE_ANSWER": json.dumps(answer),
        "BARE_ENGINE": engine,
        "PYTHONPATH": str(ROOT),
    }
    url = f"http://127.0.0.1:{port}"
    with (home / "bare.log").open("wb") as log, running(command, env, f"{url}/openapi.json", log):
        yield url


@contextmanager
def running(command: list[str], env: dict[str, str], ready: str, log: Any = None) -> Iterator[None]:
    """A server's process, from when it answers."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=log)
    try:
        while True:
            try:
                httpx.get(ready).raise_for_status()
                break
            except httpx.TransportError:
                if process.poll() is not None:
                    raise SystemExit(f"{command} ended with {process.returncode}") from None
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def prepared(platform: Stack) -> tuple[str, str]:
    """A job that waits for workers, and a key; the base model is a version that the stand-in
    answers for."""
    with Client(platform.gateway_url) as client:
        register(client, Judged("smallworld"), inference="standin")
        dataset = client.datasets.upload(INSTRUCTIONS)
        job = client.jobs.create(dataset.id, recipe="quickstart")
        key = client.keys.create("benchmark", scopes=["read", "judge"])
    return job.id, key.secret


def judgments(key: str) -> Iterator[bytes]:
    """Requests of /judge, each with another instruction of the same length."""
    body = next(questions())
    mark = "#########"
    sent = json.dumps(body | {"instruction": f"{body['instruction']} ({mark})"}).encode()
    headers = {"Authorization": f"Bearer {key}"}
    head, _, tail = load.request("POST", "/judge", sent, headers).partition(mark.encode())
    return (b"%b%09d%b" % (head, number, tail) for number in count())


def measure(ours: str, theirs: str, read: bytes, key: str, pairs: int, seconds: float) -> None:
    """Both kinds of requests in turns, and what a bare route is without the engine."""
    latency: dict[str, list[float]] = {}

    def side(name: str, url: str, requests: Iterator[bytes]) -> Callable[[], float]:
        latency[name] = []
        load.run(url, requests, CONNECTIONS, 1.0)  # what is made at first use

        def run() -> float:
            found = load.run(url, requests, CONNECTIONS, seconds)
            latency[name].append(found.p50_ms)
            return found.per_second

        return run

    reads = in_turns(
        {
            "read": side("read", ours, repeat(read)),
            "bare read": side("bare read", theirs, repeat(read)),
        },
        pairs,
    )
    asked = judgments(key)
    silent = (one.replace(b" /judge ", b" /silent/judge ", 1) for one in asked)
    judged = in_turns(
        {
            "judge": side("judge", ours, asked),
            "bare judge": side("bare judge", theirs, asked),
            "without engine": side("without engine", theirs, silent),
        },
        pairs,
    )
    unit = "requests/s"
    medians = ", ".join(f"{name} {statistics.median(found):.1f}" for name, found in latency.items())
    quiet = statistics.median(judged["without engine"])
    publish(
        "gateway",
        [
            Row("GET of a job, with a key", BARE, unit, reads["read"], reads["bare read"], 0.5),
            Row("/judge, both orders", BARE, unit, judged["judge"], judged["bare judge"], 0.5),
        ],
        [
            f"{CONNECTIONS} connections, {seconds:g} s a turn. Milliseconds of a request, medians: "
            f"{medians}.",
            f"A bare /judge route that does not even ask the engine: {quiet:,.0f} requests/s.",
            "The bare routes ask no database, check no key, and keep no project from another's "
            "rows; the bare /judge is one process, ours two (gateway and evaluator).",
            *PROFILE,
        ],
        ["fastapi", "uvicorn", "pydantic", "sqlalchemy", "psycopg", "aiohttp"],
    )


if __name__ == "__main__":
    main()
