"""Does the platform keep vLLM as busy as a bare client does, and busier than batches?

    make test-vllm                            builds .venv-vllm (once)
    python -m benchmarks.saturation [ROUNDS] [MODEL_FOLDER]

Each round posts a job and takes the seconds of its judge stage, from the first chunk's start to the
last one's end: Celery, leases, artifacts and all. Then the same requests (same prompts, seeds and
samples, a few of which make one request) go to the same server again: from a bare asyncio client
(aiohttp) that holds 256 samples in flight, and in batches of 48, each of which waits for its
slowest. The order of the three
alternates as far as it can (the job comes first, for it makes the pairs), and the server's prefix
cache is emptied before each.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from sqlalchemy import create_engine, text

from selftaught.client import Client, Job
from selftaught.hashing import stable_seed
from selftaught.inference.vllm import TOGETHER, seed_of
from selftaught.judging import ORDERS, load_judge_template
from selftaught.stack.handle import Stack

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 8
WINDOW = 256 // TOGETHER
BATCH = 48 // TOGETHER
"""Requests."""
WORKERS = 3
Body = dict[str, Any]


def main() -> None:
    """Print a line a round, then the medians as ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    model = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        if model is not None:
            (home / "models").mkdir()
            (home / "models" / "judge").symlink_to(model)
        env = {
            "SELFTAUGHT_VLLM_PYTHON": str(ROOT / ".venv-vllm" / "bin" / "python"),
            "SELFTAUGHT_DEVICES": "cpu0,cpu1",
            "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache; the server is on loopback
        }
        with (
            Stack(home, generator_workers=WORKERS, env=env) as stack,
            Client(stack.gateway_url) as client,
        ):
            found = [measure(stack, client, home, number, model) for number in range(rounds)]
    bare = [one["bare"] for one in found]
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores; medians:")
    for other in ("bare", "batches"):
        ratios = [one["platform"] / one[other] for one in found]
        print(f"platform / {other}: {statistics.median(ratios):.2f}  ({_list(ratios)})")
    ratios = [one["batches"] / speed for one, speed in zip(found, bare, strict=True)]
    print(f"batches / bare: {statistics.median(ratios):.2f}  ({_list(ratios)})")


def measure(
    stack: Stack, client: Client, home: Path, number: int, model: Path | None
) -> dict[str, float]:
    """Completion tokens per second of the three ways, on one job's judgments."""
    data = ROOT / "seeds" / "smallworld" / "data" / "instructions.jsonl"
    uploaded = client.datasets.upload(data)
    settings: dict[str, Any] = {
        "inference": "vllm",
        "iterations": 1,
        "chunk_size": 32,
        "seed": number,
        "pair": {"instructions": 256},
        "judge": {"samples": SAMPLES, "need": "all"},
        "train": {"method": "lora", "steps": 1, "warmup_steps": 0, "checkpoints": 1},
        "validate": {"instructions": 8},
    }
    if model is not None:
        plain = {"temperature": 0.8, "top_k": 50, "max_tokens": 96}
        settings |= {"base_model": "judge", "chunk_size": 4, "validate": {"instructions": 2}}
        settings["pair"] = {
            "instructions": 16,
            "template": "modify",
            "respond": plain,
            "modify": plain,
        }
        settings["judge"] |= {"template": "mt-bench", "sampling": plain | {"max_tokens": 256}}
    job = client.jobs.create(
        uploaded.id, recipe="quickstart", overrides=settings, model=f"bench-{number}"
    )
    url = reset_before_judging(stack, job)
    job.wait(3600)
    bodies = requests(job, home)
    (stage,) = [one for one in list(job.iterations())[1].stages if one.kind == "judge"]
    assert stage.seconds is not None, "it has ended"
    speeds = {"platform": stage.counts["tokens"] / stage.seconds}
    ways = {"bare": (WINDOW, False), "batches": (BATCH, True)}
    for name in sorted(ways, reverse=bool(number % 2)):
        reset(url)
        began = time.perf_counter()
        tokens = asyncio.run(send(url, bodies, *ways[name]))
        speeds[name] = tokens / (time.perf_counter() - began)
    told = "  ".join(f"{name} {speed:.0f} tok/s" for name, speed in sorted(speeds.items()))
    print(f"round {number + 1}: {len(bodies)} requests, {stage.counts['tokens']} tokens: {told}")
    return speeds


def reset_before_judging(stack: Stack, job: Job) -> str:
    """Wait for the judge stage; empty the prefix cache as it begins; the server's address."""
    while True:
        for event in job.events(follow=False):
            if event.type == "job.failed":
                raise SystemExit(event.data)
            if event.type == "stage.started" and event.data["stage"] == "judge":
                engine = create_engine(stack.database_url)
                with engine.connect() as connection:
                    query = "SELECT url FROM engine_servers WHERE state = 'ready'"
                    url = str(connection.execute(text(query)).scalar_one()).removesuffix("/v1")
                engine.dispose()
                reset(url)
                return url
        time.sleep(0.05)


def reset(url: str) -> None:
    httpx.post(f"{url}/reset_prefix_cache", timeout=60).raise_for_status()


def requests(job: Job, home: Path, together: int = TOGETHER) -> list[Body]:
    """What the judge stage sent, as bodies for /v1/completions, so many samples in each."""
    from transformers import AutoTokenizer

    recipe = job.recipe
    folder = home / "models" / recipe["base_model"]
    folder = (folder if folder.exists() else ROOT / "seeds" / "smallworld").resolve()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = load_judge_template(recipe["judge"]["template"])
    sampling = recipe["judge"]["sampling"]
    path = job.download(1, "pair", home / "pairs.jsonl")
    bodies = []
    for pair in map(json.loads, path.read_text().splitlines()):
        for order in ORDERS:
            prompt = tokenizer.apply_chat_template(
                list(template.show(pair, order)), tokenize=False, add_generation_prompt=True
            )
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            seed = stable_seed(stable_seed(recipe["seed"], 1), "judge", pair["id"], order)
            samples = range(recipe["judge"]["samples"])
            for some in (samples[first : first + together] for first in samples[::together]):
                body = {"model": folder.name, "prompt": ids, **sampling}
                bodies.append({**body, "seed": seed_of(seed, some.start), "n": len(some)})
    return bodies


async def send(url: str, bodies: list[Body], window: int, barrier: bool) -> int:
    """Completion tokens; at most `window` requests in flight, or batches of so many."""
    connector = aiohttp.TCPConnector(limit=window)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:

        async def one(body: Body) -> int:
            async with client.post(f"{url}/v1/completions", json=body) as answer:
                answer.raise_for_status()
                return int((await answer.json())["usage"]["completion_tokens"])

        if barrier:
            total = 0
            for first in range(0, len(bodies), window):
                total += sum(await asyncio.gather(*map(one, bodies[first : first + window])))
            return total
        waiting = iter(bodies)

        async def worker() -> int:
            return sum([await one(body) for body in waiting])

        return sum(await asyncio.gather(*(worker() for _ in range(window))))


def _list(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


if __name__ == "__main__":
    main()
