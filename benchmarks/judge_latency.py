"""What POST /judge adds to the engine's own time, and whether it keeps the engine as busy.

    python -m benchmarks.judge_latency [CALLS]              the stand-in engine, 20 ms an answer
    python -m benchmarks.judge_latency CALLS smallworld     vLLM (.venv-vllm) with the shipped seed
    python -m benchmarks.judge_latency CALLS MODEL_FOLDER   vLLM with another base model

The same prompts (both orders of a pair, greedily) go straight to the engine's chat endpoint, from
an asyncio client (aiohttp) that keeps its connections, and through gateway and evaluator, whose
cache is not used. *Latency*: one call at a time, the two ways in turns; what is added is the
difference of a pair of calls. *Throughput*: 64 calls at once, the two ways in turns; vLLM's prefix
cache is emptied before each.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import create_engine, text

from benchmarks import machine
from selftaught.client import ApiError, Client
from selftaught.contracts import JudgeIn
from selftaught.judging import load_judge_template
from selftaught.stack.handle import Stack
from selftaught.stack.state import free_port
from services.evaluator.ruling import requests_of

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ROOT / "seeds" / "smallworld" / "data" / "dev.jsonl"
ONLY = frozenset({"postgres", "redis", "migrations", "gateway", "evaluator", "relay", "trainer1"})
SECONDS = 0.02
AT_ONCE = 64
ROUNDS = 5
Body = dict[str, Any]
Ask = Callable[[Body], Awaitable[None]]


def main() -> None:
    """Print both measurements."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    model = sys.argv[2] if len(sys.argv) > 2 else None
    print(machine.name(), flush=True)
    with tempfile.TemporaryDirectory() as home:
        if model is None:
            stand_in(Path(home), calls)
        else:
            vllm(Path(home), model, calls)


def stand_in(home: Path, calls: int) -> None:
    """The platform over an engine that takes the same time for every answer."""
    port = free_port(lambda port: False)
    command = [sys.executable, "-m", "benchmarks.standin", str(port), str(SECONDS)]
    url = f"http://127.0.0.1:{port}/v1"
    env = {"SELFTAUGHT_ENDPOINTS": json.dumps({"standin": url})}
    engine = subprocess.Popen(command, cwd=ROOT)
    try:
        with Stack(home, only=ONLY, env=env) as stack, Client(stack.gateway_url) as client:
            register(client, base_model="smallworld", inference="standin")
            asyncio.run(measure(stack, url, "smallworld", "mt-bench", 64, calls))
    finally:
        engine.terminate()
        engine.wait()


def vllm(home: Path, model: str, calls: int) -> None:
    """The platform over a vLLM server that its node starts."""
    name, template, limit = model, "smallworld", 96
    if model != "smallworld":
        name, template, limit = "judge", "mt-bench", 64
        (home / "models").mkdir()
        (home / "models" / name).symlink_to(Path(model).resolve())
    env = {
        "SELFTAUGHT_VLLM_PYTHON": str(ROOT / ".venv-vllm" / "bin" / "python"),
        "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache; the server is on loopback
    }
    with (
        Stack(home, only=ONLY | {"engine"}, env=env) as stack,
        Client(stack.gateway_url) as client,
    ):
        register(client, base_model=name, inference="vllm", template=template, max_tokens=limit)
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
        served = Path(model).name
        asyncio.run(measure(stack, url, served, template, limit, calls))


@contextmanager
def database(stack: Stack) -> Iterator[Any]:
    engine = create_engine(stack.database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def register(client: Client, **model: Any) -> None:
    job = client.register_model(**model)
    if (ended := client.wait(job["id"], 600))["state"] != "succeeded":
        raise SystemExit(f"not registered: {ended['error']}")


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


async def measure(
    stack: Stack, url: str, model: str, template: str, limit: int, calls: int
) -> None:
    """Print what the platform adds to one call, and the throughput of many."""
    judge_template = load_judge_template(template)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def post(to: str, body: Mapping[str, Any]) -> None:
            async with http.post(to, json=body) as answer:
                if answer.status != 200:
                    raise SystemExit(f"{to}: {answer.status} {(await answer.text())[:300]}")
                await answer.read()

        async def direct(question: Body) -> None:
            orders = requests_of(JudgeIn.model_validate(question), judge_template, b"")
            sampling = {"temperature": 0, "max_tokens": limit, "model": model}
            bodies = [{**sampling, "messages": request.messages} for request in orders]
            await asyncio.gather(*(post(f"{url}/chat/completions", body) for body in bodies))

        async def judge(question: Body) -> None:
            await post(f"{stack.gateway_url}/judge", question)

        async def reset() -> None:
            if stack.config.wants("engine"):
                await post(f"{url.removesuffix('/v1')}/reset_prefix_cache", {})

        source = questions()
        await latency(direct, judge, list(islice(source, calls + 20)))
        await throughput(direct, judge, reset, lambda: list(islice(source, calls)))


async def latency(direct: Ask, judge: Ask, source: list[Body]) -> None:
    """One call at a time: the difference, in milliseconds."""
    seconds: dict[Ask, list[float]] = {direct: [], judge: []}
    for number, question in enumerate(source):
        for way in (direct, judge) if number % 2 else (judge, direct):
            began = time.perf_counter()
            await way(question)
            seconds[way].append(time.perf_counter() - began)
    warm = {way: found[20:] for way, found in seconds.items()}
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
