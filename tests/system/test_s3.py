"""Two nodes with homes of their own do one job; all they share is Postgres, Redis and a bucket."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.s3 import S3
from tests.system.conftest import SEED, TINY

ROOT = Path(__file__).resolve().parents[2]
FIRST = {"postgres", "redis", "migrations", "gateway", "evaluator", "relay"}
FIRST |= {"generator1", "trainer1"}


@contextmanager
def worker(stack: Stack, home: Path, queue: str, role: str) -> Iterator[None]:
    """A Celery worker as another machine starts it."""
    env = {
        **os.environ,
        **stack.config.env,
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "SELFTAUGHT_HOME": str(home),
        "SELFTAUGHT_ROLE": role,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    options = ["-Q", queue, "--pool", "solo", "--loglevel", "INFO", "-n", f"{role}@%h"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = [sys.executable, "-m", "celery", "-A", f"services.{queue}.tasks", "worker"]
    log = home / f"{role}.log"
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *options], env=env, cwd=ROOT, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 120
        while " ready." not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.stop()


def rows(stack: Stack, query: str) -> list[Any]:
    engine = create_engine(stack.database_url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(text(query)))
    finally:
        engine.dispose()


def test_two_nodes_share_one_job(s3: S3, tmp_path: Path) -> None:
    """The second node makes and judges pairs beside the first, and alone scores versions."""
    bucket = s3.new_bucket()
    env = {**s3.env, "SELFTAUGHT_ARTIFACTS_URL": f"s3://{bucket}/artifacts-of/test"}
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    with (
        Stack(first, generator_workers=1, only=FIRST, env=env) as stack,
        worker(stack, second, "generator", "second-generator"),
        worker(stack, second, "evaluator", "second-evaluator"),
        Client(stack.gateway_url) as client,
    ):
        job = client.wait(start(client, tmp_path), 600)
        assert job["state"] == "succeeded", job["error"]
        for entry in client.iterations(job["id"])[1:]:
            counts = entry["counts"]
            assert counts["judgments_sampled"] == 2 * 3 * counts["judged_pairs"]
            kept, wrong = counts["judgments_right"], counts["judgments_wrong"]
            assert 0 < counts["training_examples"] <= kept
            assert kept + wrong + counts["judgments_tie"] <= counts["judgments_sampled"]
            assert entry["metrics"]["labelled"]["n"] == 12
            assert count(client, job["id"], entry["number"], "pair", tmp_path) == counts["pairs"]
            examples = count(client, job["id"], entry["number"], "curate", tmp_path)
            assert examples == counts["training_examples"]
        answer = client.judge("Repeat these letters: a b c", "a b c", "c b", model=job["model"])
        assert answer["model"].startswith(f"{job['model']}:")

        owners = rows(stack, "SELECT kind, split_part(lock_owner, '@', 1), attempt FROM chunks")
        done = {kind: {who for k, who, _ in owners if k == kind} for kind, _, _ in owners}
        assert done["pair"] | done["judge"] == {"generator1", "second-generator"}
        assert done["validate"] == {"second-evaluator"} and done["train"] == {"trainer1"}
        assert {attempt for _, _, attempt in owners} == {1}

        prefix = "artifacts-of/test"
        keys = s3.keys(bucket)
        for path, sha256 in rows(stack, "SELECT path, sha256 FROM artifacts"):
            body = s3.body(bucket, f"{prefix}/artifacts/{path}")
            assert hashlib.sha256(body).hexdigest() == sha256
        trained = [
            path for (path,) in rows(stack, "SELECT path FROM model_versions") if "/" not in path
        ]
        assert len(trained) == 2
        for path in trained:
            assert f"{prefix}/versions/{path}/model.safetensors" in keys
        # What the second node needs of the first, and no more, came to it.
        assert (second / "versions" / trained[0] / "model.safetensors").is_file()
        assert list((second / "versions").glob(".*")) == []


def start(client: Client, folder: Path) -> str:
    ids = {}
    for kind, name, size in (
        ("instructions", "instructions.jsonl", 100),
        ("labelled", "dev.jsonl", 12),
    ):
        path = folder / name
        lines = (SEED / "data" / name).read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:size]))
        ids[kind] = client.upload(path, kind=kind)["id"]
    job = client.create_job(
        dataset=ids["instructions"],
        labelled_dataset=ids["labelled"],
        recipe="quickstart",
        overrides=TINY,
        model="two-nodes",
    )
    return str(job["id"])


def count(client: Client, job: str, iteration: int, name: str, folder: Path) -> int:
    """The rows of a download."""
    path = client.download(job, iteration, name, folder / f"{iteration}-{name}", "jsonl")
    return len(path.read_text().splitlines())
