"""Two nodes, two servers, two generator workers, one of which dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftaught.stack.handle import Stack
from tests.vllm.conftest import (
    ROOT,
    VLLM,
    await_,
    judged_once,
    judging,
    metric,
    rows,
    server_urls,
)

pytestmark = pytest.mark.vllm
DEVICES = "cpu0,cpu1"


@pytest.fixture
def second_node(stack: Stack) -> Iterator[None]:
    """Another machine's engine process; the home is shared, as between machines."""
    env = {
        **os.environ,
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "SELFTAUGHT_HOME": str(stack.home),
        "SELFTAUGHT_NODE": "second",
        "SELFTAUGHT_DEVICES": "cpu0",
        "SELFTAUGHT_VLLM_PYTHON": str(VLLM),
    }
    process = subprocess.Popen([sys.executable, "-m", "services.engine.main"], env=env, cwd=ROOT)
    yield
    process.terminate()
    process.wait(60)


def finished_by(stack: Stack, worker: str) -> set[str]:
    """The judge chunks whose result this worker applied, by its log."""
    log = (stack.home / "logs" / f"{worker}.log").read_text()
    lines = [
        line for line in log.splitlines() if line.endswith(" applied") and " judge " in f" {line}"
    ]
    return {word for line in lines for word in line.split() if word.startswith("st_")}


def test_two_workers_share_two_servers_and_one_may_die(
    stack: Stack, start_job: Any, second_node: None, tmp_path: Path
) -> None:
    first = start_job(pair={"instructions": 16})  # for which both nodes start a server
    first.wait(900)
    await_(lambda: len(server_urls(stack)) == 2)
    before = {worker: finished_by(stack, worker) for worker in ("generator1", "generator2")}
    job = start_job(pair={"instructions": 320})
    await_(lambda: judging(stack, job))
    await_(lambda: finished_by(stack, "generator1") - before["generator1"])
    stack.kill("generator1")
    job.wait(900)
    assert judged_once(job, 4, tmp_path) > 200
    ((chunks, done, attempts),) = rows(
        stack,
        "SELECT count(*), count(DISTINCT artifact_id), sum(attempt) FROM chunks "
        "WHERE job_id = :job AND kind = 'judge'",
        job=job.id,
    )
    assert chunks == done
    assert attempts - chunks <= 1  # at most the chunk that the dead one held was begun again
    one, other = (finished_by(stack, worker) - done for worker, done in before.items())
    assert one and other and not one & other
    assert len(one | other) == chunks
    for url in server_urls(stack):
        assert metric(url, "generation_tokens_total") > 1000
