"""What POST /judge adds to the engine's own time, and whether it keeps the engine as busy.

    python -m benchmarks.judge_latency [CALLS]              the stand-in engine, 20 ms an answer
    python -m benchmarks.judge_latency CALLS local [MODEL]  transformers; default: the shipped seed
    python -m benchmarks.judge_latency CALLS vllm [MODEL]   vLLM (.venv-vllm) likewise

MODEL is a folder of weights. The same prompts (both orders of a pair, greedily) go straight to the
engine, and through gateway and evaluator, whose cache is not used. *Straight* is an asyncio client
(aiohttp) of the engine's chat endpoint that keeps its connections and asks for log-probabilities,
as the platform does; for transformers, a second copy of the model in this process with as many
threads, asked in batches of all calls that wait.
*Latency*: one call at a time, the two ways in turns; what is added is the difference of a pair of
calls. *Throughput*: 64 calls at once, the two ways in turns; vLLM's prefix cache is emptied before
each.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import aiohttp
import torch
from sqlalchemy import create_engine, text

from benchmarks import machine
from selftaught.client import ApiError, Client
from selftaught.contracts import JudgeIn, SamplingSettings
from selftaught.inference.local import LocalEngine
from selftaught.judging import TOP, load_judge_template
from selftaught.stack.handle import Stack
from selftaught.stack.state import free_port
from services.evaluator.askers import Together
from services.evaluator.ruling import requests_of

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ROOT / "seeds" / "smallworld" / "data" / "dev.jsonl"
ONLY = frozenset({"postgres", "redis", "migrations", "gateway", "evaluator", "relay", "trainer1"})
SECONDS = 0.02
AT_ONCE = 64
WARM = 10
"""Calls whose latency does not count."""
MOST_ALONE = 50
"""Calls of a real model one at a time, at most; a large one takes seconds for each."""
ROUNDS = 5
Body = dict[str, Any]
Ask = Callable[[Body], Awaitable[None]]


def main() -> None:
    """Print both measurements."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    engine = sys.argv[2] if len(sys.argv) > 2 else "stand-in"
    folder = Path(sys.argv[3]).resolve() if len(sys.argv) > 3 else None
    packages = {"local": ["torch", "transformers"]}.get(engine, [])
    print(f"{machine.name(*packages)}; {engine}", flush=True)
    with tempfile.TemporaryDirectory() as home:
        if engine == "stand-in":
            stand_in(Path(home), calls)
        else:
            {"local": local, "vllm": vllm}[engine](Path(home), Judged.of(Path(home), folder), calls)


@dataclass(frozen=True)
class Judged:
    """A base model, and how it is asked."""

    name: str
    template: str = "mt-bench"
    limit: int = 64

    @classmethod
    def of(cls, home: Path, folder: Path | None) -> Judged:
        """The shipped seed, or the weights in `folder` as a base model of this home."""
        if folder is None:
            return cls("smallworld", "smallworld", 96)
        (home / "models").mkdir()
        (home / "models" / "judge").symlink_to(folder)
        return cls("judge")


def stand_in(home: Path, calls: int) -> None:
    """The platform over an engine that takes the same time for every answer."""
    port = free_port(lambda port: False)
    command = [sys.executable, "-m", "benchmarks.standin", str(port), str(SECONDS)]
    url = f"http://127.0.0.1:{port}/v1"
    env = {"SELFTAUGHT_ENDPOINTS": json.dumps({"standin": url})}
    engine = subprocess.Popen(command, cwd=ROOT)
    try:
        with Stack(home, only=ONLY, env=env) as stack, Client(stack.gateway_url) as client:
            model = Judged("smallworld")
            register(client, model, inference="standin")
            asyncio.run(over_http(stack, url, model.name, model, calls))
    finally:
        engine.terminate()
        engine.wait()


def local(home: Path, model: Judged, calls: int) -> None:
    """The platform over transformers in the evaluator's own process."""
    threads = os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the stack gives its processes
    with Stack(home, only=ONLY) as stack, Client(stack.gateway_url) as client:
        register(client, model, inference="local")
        client.call("POST", "/judge", json=next(questions()))
        torch.set_num_threads(int(threads))
        folder = home / "models" / model.name
        engine = LocalEngine(folder if folder.exists() else ROOT / "seeds" / "smallworld")
        template = load_judge_template(model.template)
        sampling = SamplingSettings(temperature=0, max_tokens=model.limit)

        async def run() -> None:
            straight = Together(engine)

            async def direct(question: Body) -> None:
                orders = requests_of(JudgeIn.model_validate(question), template, b"")
                await straight.ask(orders, sampling)

            async with http_client() as http:
                judge = judging(stack, http)
                await measure(direct, judge, nothing, calls)

        asyncio.run(run())


def vllm(home: Path, model: Judged, calls: int) -> None:
    """The platform over a vLLM server that its node starts."""
    env = {
        "SELFTAUGHT_VLLM_PYTHON": str(ROOT / ".venv-vllm" / "bin" / "python"),
        "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache; the server is on loopback
    }
    with (
        Stack(home, only=ONLY | {"engine"}, env=env) as stack,
        Client(stack.gateway_url) as client,
    ):
        register(client, model, inference="vllm")
        question = next(questions())
        while True:
            try:
                client.call("POST", "/judge", json=question)
                break
            except ApiError as error:
                if error.status != 503:  # the server is being started
                    raise
        with database(stack) as connection:
            query = "SELECT url FROM engine_servers WHERE state = 'ready'"
            url = str(connection.execute(text(query)).scalar_one())
        folder = home / "models" / model.name
        served = folder.resolve().name if folder.exists() else model.name
        asyncio.run(over_http(stack, url, served, model, calls, reset=True))


@contextmanager
def database(stack: Stack) -> Iterator[Any]:
    engine = create_engine(stack.database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def register(client: Client, model: Judged, inference: str, name: str | None = None) -> None:
    """Make the base model a version (of the model `name`) and wait for it."""
    job = client.models.register(
        model.name,
        name=name,
        inference=inference,
        template=model.template,
        max_tokens=model.limit,
    )
    job.wait(600)


def questions() -> Iterator[Body]:
    """Pairs of the small world's labelled set, again and again, each time another question."""
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    for number, pair in enumerate(cycle(pairs)):
        more = f" ({number // len(pairs)})" if number >= len(pairs) else ""
        yield {
            "instruction": pair["instruction"] + more,
            "response_a": pair["chosen"],
            "response_b": pair["rejected"],
            "cache": False,
        }


def http_client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4))


async def post(http: aiohttp.ClientSession, to: str, body: Mapping[str, Any]) -> None:
    async with http.post(to, json=body) as answer:
        if answer.status != 200:
            raise SystemExit(f"{to}: {answer.status} {(await answer.text())[:300]}")
        await answer.read()


def judging(stack: Stack, http: aiohttp.ClientSession) -> Ask:
    """A call of /judge."""
    return lambda question: post(http, f"{stack.gateway_url}/judge", question)


async def nothing() -> None:
    """What is done before a round, if nothing is."""


async def over_http(
    stack: Stack, url: str, served: str, model: Judged, calls: int, reset: bool = False
) -> None:
    """Measure against an OpenAI-compatible server at `url`."""
    template = load_judge_template(model.template)
    async with http_client() as http:

        async def direct(question: Body) -> None:
            orders = requests_of(JudgeIn.model_validate(question), template, b"")
            sampling = {"temperature": 0, "max_tokens": model.limit, "model": served}
            likely = {"logprobs": True, "top_logprobs": TOP}  # as the platform asks, too
            bodies = [{**sampling, **likely, "messages": request.messages} for request in orders]
            await asyncio.gather(*(post(http, f"{url}/chat/completions", one) for one in bodies))

        async def empty() -> None:
            await post(http, f"{url.removesuffix('/v1')}/reset_prefix_cache", {})

        most = MOST_ALONE if reset else calls
        await measure(direct, judging(stack, http), empty if reset else nothing, calls, most)


async def measure(
    direct: Ask,
    judge: Ask,
    reset: Callable[[], Awaitable[None]],
    calls: int,
    most: int = MOST_ALONE,
) -> None:
    """Print what the platform adds to one call (of at most `most`), and the throughput of many."""
    source = questions()
    await latency(direct, judge, list(islice(source, min(calls, most) + WARM)))
    await throughput(direct, judge, reset, lambda: list(islice(source, calls)))


async def latency(direct: Ask, judge: Ask, source: list[Body]) -> None:
    """One call at a time: the difference, in milliseconds."""
    seconds: dict[Ask, list[float]] = {direct: [], judge: []}
    for number, question in enumerate(source):
        for way in (direct, judge) if number % 2 else (judge, direct):
            began = time.perf_counter()
            await way(question)
            seconds[way].append(time.perf_counter() - began)
    warm = {way: found[WARM:] for way, found in seconds.items()}
    added = [two - one for one, two in zip(warm[direct], warm[judge], strict=True)]
    print(f"one call at a time, {len(added)} pairs of calls; milliseconds:")
    for name, found in (("direct", warm[direct]), ("/judge", warm[judge]), ("added", added)):
        cuts = statistics.quantiles(found, n=20)
        print(f"  {name:7} p50 {1000 * cuts[9]:7.2f}   p95 {1000 * cuts[18]:7.2f}")
    print("", end="", flush=True)


async def throughput(
    direct: Ask, judge: Ask, reset: Callable[[], Awaitable[None]], draw: Callable[[], list[Body]]
) -> None:
    """64 at once: calls a second, and the ratio of the two ways in each round."""
    ratios = []
    for number in range(ROUNDS):
        source, speed = draw(), {}
        for way in (direct, judge) if number % 2 else (judge, direct):
            await reset()
            waiting = iter(source)

            async def worker(way: Ask = way, waiting: Iterator[Body] = waiting) -> None:
                for question in waiting:
                    await way(question)

            began = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
            speed[way] = len(source) / (time.perf_counter() - began)
        ratios.append(speed[judge] / speed[direct])
        told = f"direct {speed[direct]:.1f}, /judge {speed[judge]:.1f} calls/s"
        print(f"round {number + 1}, {AT_ONCE} at once: {told}, ratio {ratios[-1]:.2f}", flush=True)
    print(f"throughput, /judge / direct: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
