"""Two nodes with homes of their own do one job; all they share is Postgres, Redis and a bucket."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from selftaught.client import Client, Job
from selftaught.contracts import DatasetKind
from selftaught.stack.handle import Stack
from tests.s3 import S3
from tests.system.conftest import SEED, TINY

ROOT = Path(__file__).resolve().parents[2]
FIRST = {"postgres", "redis", "migrations", "gateway", "evaluator", "relay"}
FIRST |= {"generator1", "trainer1"}


SMALL = {
    **TINY,
    "iterations": 1,
    "chunk_size": 4,
    "pair": {"instructions": 16},
    "validate": {"instructions": 8},
}


@contextmanager
def workers(stack: Stack, home: Path, *queues: str) -> Iterator[None]:
    """Celery workers as another machine starts them, ready; each logs to <home>/<queue>.log."""
    env = {
        **os.environ,
        **stack.config.env,
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "SELFTAUGHT_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    home.mkdir()
    started: list[tuple[Path, subprocess.Popen[bytes]]] = []
    try:
        for queue in queues:
            command = [sys.executable, "-m", "celery", "-A", f"services.{queue}.tasks", "worker"]
            command += ["-Q", queue, "--pool", "solo", "--loglevel", "INFO", "-n", "second@%h"]
            command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            log = home / f"{queue}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=out, stderr=out)
            started.append((log, process))
        deadline = time.monotonic() + 120
        for log, process in started:
            while " ready." not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield
    finally:
        for _, process in started:
            process.terminate()
            process.wait(30)


def done(log: Path) -> Counter[str]:
    """How many chunks of which kind a worker's result was applied of, by its log."""
    return Counter(re.findall(r" (\w+) st_\S+ applied$", log.read_text(), flags=re.MULTILINE))


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
    with (
        Stack(first, generator_workers=1, only=FIRST, env=env) as stack,
        workers(stack, second, "generator", "evaluator"),
        Client(stack.gateway_url) as client,
    ):
        job = start(client, tmp_path).wait(600)
        for entry in list(job.iterations())[1:]:
            counts = entry.counts
            assert counts["judgments_sampled"] == 2 * 3 * counts["judged_pairs"]
            kept, wrong = counts["judgments_right"], counts["judgments_wrong"]
            assert 0 < counts["training_examples"] <= kept
            assert kept + wrong + counts["judgments_tie"] <= counts["judgments_sampled"]
            assert entry.metrics["labelled"]["n"] == 12
            assert count(job, entry.number, "pair", tmp_path) == counts["pairs"]
            examples = count(job, entry.number, "curate", tmp_path)
            assert examples == counts["training_examples"]
        answer = client.judge("Repeat these letters: a b c", "a b c", "c b", model=job.model)
        assert answer.model.startswith(f"{job.model}:")

        here, there = (done(first / "logs" / "generator1.log"), done(second / "generator.log"))
        for kind in ("pair", "judge"):
            assert here[kind] > 0 and there[kind] > 0
            assert here[kind] + there[kind] == chunks(stack, kind)
        assert done(second / "evaluator.log")["validate"] == chunks(stack, "validate") > 0
        assert done(first / "logs" / "trainer1.log")["train"] == 1
        assert rows(stack, "SELECT DISTINCT attempt FROM chunks") == [(1,)]

        prefix = "artifacts-of/test"
        keys = s3.keys(bucket)
        for path, sha256 in rows(stack, "SELECT path, sha256 FROM artifacts"):
            body = s3.body(bucket, f"{prefix}/artifacts/{path}")
            assert hashlib.sha256(body).hexdigest() == sha256
        paths = [path for (path,) in rows(stack, "SELECT path FROM model_versions")]
        (trained,) = (path for path in paths if not Path(path).is_absolute())
        for file in (first / "versions" / trained).iterdir():
            assert f"{prefix}/versions/{trained}/{file.name}" in keys
            assert (second / "versions" / trained / file.name).read_bytes() == file.read_bytes()
        assert [folder.name for folder in (second / "versions").iterdir()] == [trained]


def chunks(stack: Stack, kind: str) -> int:
    return sum(k == kind for (k,) in rows(stack, "SELECT kind FROM chunks"))


def start(client: Client, folder: Path) -> Job:
    ids = {}
    uploads: tuple[tuple[DatasetKind, str, int], ...] = (
        ("instructions", "instructions.jsonl", 100),
        ("labelled", "dev.jsonl", 12),
    )
    for kind, name, size in uploads:
        path = folder / name
        lines = (SEED / "data" / name).read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:size]))
        ids[kind] = client.datasets.upload(path, kind).id
    return client.jobs.create(
        ids["instructions"],
        labelled_dataset=ids["labelled"],
        recipe="quickstart",
        overrides=SMALL,
        model="two-nodes",
    )


def count(job: Job, iteration: int, name: str, folder: Path) -> int:
    """The rows of a download."""
    path = job.download(iteration, name, folder / f"{iteration}-{name}")
    return len(path.read_text().splitlines())
