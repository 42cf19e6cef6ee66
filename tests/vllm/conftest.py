"""The embedded stack with a real vLLM beside it: `make test-vllm` builds its environment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from selftaught.client import Client, Job
from selftaught.contracts import EventOut
from selftaught.stack.handle import Stack

ROOT = Path(__file__).resolve().parents[2]
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
SEED = Path(str(files("seeds"))) / "smallworld"
SMALL: dict[str, Any] = {
    "inference": "vllm",
    "iterations": 1,
    "chunk_size": 16,
    "pair": {"instructions": 96},
    "judge": {"samples": 4},
    "train": {
        "method": "lora",
        "steps": 20,
        "tokens_per_step": 500,
        "warmup_steps": 1,
        "learning_rate": 1e-3,
        "checkpoints": 1,
    },
    "validate": {"instructions": 32},
}
Json = dict[str, Any]


def start(home: Path, **env: str) -> Stack:
    """A stack with two generator workers that notices quickly what died."""
    if not VLLM.exists():
        pytest.fail("no vLLM environment: run `make test-vllm`, which builds it")
    quick = {
        "SELFTAUGHT_VLLM_PYTHON": str(VLLM),
        "SELFTAUGHT_NODE": "first",
        "SELFTAUGHT_LEASE_SECONDS": "6",
        "SELFTAUGHT_HEARTBEAT_SECONDS": "1",
        "SELFTAUGHT_RERING_SECONDS": "3",
        "SELFTAUGHT_ENGINE_HANG_SECONDS": "30",
        "SELFTAUGHT_ENGINE_RESTARTS": "1",
        "SELFTAUGHT_ENGINE_CALM_SECONDS": "1",
    }
    return Stack(home, generator_workers=2, env={**quick, **env})


def upload(stack: Stack, folder: Path) -> str:
    """Id of a few hundred instructions."""
    path = folder / "instructions.jsonl"
    lines = (SEED / "data" / path.name).read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:400]))
    with Client(stack.gateway_url) as client:
        return client.datasets.upload(path).id


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stack]:
    """One for a module's tests, with the devices that the module names."""
    home = tmp_path_factory.mktemp("vllm")
    with start(home, SELFTAUGHT_DEVICES=request.module.DEVICES) as running:
        yield running


@pytest.fixture(scope="module")
def instructions(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    return upload(stack, tmp_path_factory.mktemp("uploads"))


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway_url) as found:
        yield found


@pytest.fixture
def start_job(client: Client, instructions: str, request: pytest.FixtureRequest) -> Any:
    """Starts the small job under a model name of the test's own."""

    def begin(**overrides: Any) -> Job:
        return client.jobs.create(
            instructions,
            recipe="quickstart",
            overrides={**json.loads(json.dumps(SMALL)), **overrides},
            model=request.node.name.replace("_", "-").replace("[", ".").replace("]", "")[:63],
        )

    return begin


def rows(stack: Stack, query: str, **values: Any) -> list[Any]:
    """What the database says."""
    engine = create_engine(stack.database_url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(text(query), values))
    finally:
        engine.dispose()


def server_urls(stack: Stack) -> list[str]:
    """Base URLs of the servers that are ready, without /v1."""
    found = rows(stack, "SELECT url FROM engine_servers WHERE state = 'ready' ORDER BY node")
    return [url.removesuffix("/v1") for (url,) in found]


def metric(url: str, name: str) -> float:
    """A counter or gauge of a server."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}{{"))


def events(job: Job, *types: str) -> list[EventOut]:
    """The job's events of these types, in order."""
    return [event for event in job.events(follow=False) if event.type in types]


def await_(what: Callable[[], Any], seconds: float = 600.0) -> Any:
    """The first true value of `what`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the moment never came")


def judging(stack: Stack, job: Job) -> bool:
    """The judge stage is under way."""
    assert job.refresh().state == "running", job.error
    chunks = rows(
        stack,
        "SELECT count(*) FILTER (WHERE state = 'running') FROM chunks "
        "WHERE job_id = :job AND kind = 'judge'",
        job=job.id,
    )
    return bool(chunks[0][0])


def judged_once(job: Job, samples: int, folder: Path) -> int:
    """Every pair was judged `samples` times in each order, no sample twice; how many pairs."""
    path = folder / "judge.jsonl"
    job.download(1, "judge", path)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    asked = [(row["pair_id"], row["order"], row["sample"]) for row in found]
    pairs = {pair for pair, _, _ in asked}
    expected = {(p, o, s) for p in pairs for o in ("AB", "BA") for s in range(samples)}
    assert len(asked) == len(set(asked))
    assert set(asked) == expected
    counted = list(job.iterations())[1].counts
    assert counted["pairs"] == counted["judged_pairs"] == len(pairs)
    return len(pairs)
