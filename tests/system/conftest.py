"""The whole embedded stack, as `selftaught up` starts it, and a job small enough to repeat."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from selftaught.client import Client, Job
from selftaught.contracts import DatasetKind
from selftaught.stack.handle import Stack

SEED = Path(str(files("seeds"))) / "smallworld"
TINY: dict[str, Any] = {
    "iterations": 2,
    "chunk_size": 8,
    "pair": {"instructions": 32},
    "judge": {"samples": 3},
    "train": {"steps": 8, "tokens_per_step": 500, "warmup_steps": 1, "checkpoints": 1},
    "validate": {"instructions": 16},
}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all system tests, quick to notice a lost worker or message."""
    home = tmp_path_factory.mktemp("system")
    broken = home / "models" / "broken"
    shutil.copytree(SEED, broken, ignore=shutil.ignore_patterns("data"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    env = {
        "SELFTAUGHT_LEASE_SECONDS": "6",
        "SELFTAUGHT_HEARTBEAT_SECONDS": "1",
        "SELFTAUGHT_RERING_SECONDS": "3",
        "SELFTAUGHT_MODELS_DIR": str(home / "models"),
        "SELFTAUGHT_WEBHOOK_NETWORKS": '["127.0.0.0/8"]',
    }
    with Stack(home, generator_workers=1, env=env) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway_url) as found:
        yield found


@pytest.fixture(scope="session")
def datasets(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of a small upload of each kind."""
    folder = tmp_path_factory.mktemp("uploads")
    ids = {}
    with Client(stack.gateway_url) as client:
        uploads: tuple[tuple[DatasetKind, str, int], ...] = (
            ("instructions", "instructions.jsonl", 100),
            ("labelled", "dev.jsonl", 12),
        )
        for kind, source, rows in uploads:
            path = folder / source
            lines = (SEED / "data" / source).read_text().splitlines(keepends=True)
            path.write_text("".join(lines[:rows]))
            ids[kind] = client.datasets.upload(path, kind).id
    return ids


@pytest.fixture
def tiny_job(client: Client, datasets: dict[str, str], request: pytest.FixtureRequest) -> Any:
    """Starts the tiny job under a model name of the test's own."""

    def start(**overrides: Any) -> Job:
        return client.jobs.create(
            datasets["instructions"],
            labelled_dataset=datasets["labelled"],
            recipe="quickstart",
            overrides={**json.loads(json.dumps(TINY)), **overrides},
            model=request.node.name.replace("_", "-").replace("[", ".").replace("]", "")[:63],
        )

    return start
