"""A worker that is frozen past its lease and then goes on applies nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from selftaught.database import transaction
from selftaught.database.tables import Artifact, EngineDemand, Evaluation
from selftaught.settings import get_settings
from selftaught.work import kernel
from selftaught.work.worker import run_one
from tests.work.helpers import HANDLERS, chunk, drain, events, job, make_job, ready

pytestmark = pytest.mark.usefixtures("database")


def start(chunk_id: str, heartbeat: str) -> subprocess.Popen[str]:
    """The process, in the middle of its work."""
    short = {"SELFTAUGHT_LEASE_SECONDS": "1", "SELFTAUGHT_HEARTBEAT_SECONDS": heartbeat}
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.work.frozen", chunk_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **short},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "working\n"
    return worker


def there_is(job_id: str) -> tuple[list[int], list[str], list[tuple[int, str]]]:
    """Every trace that a worker can leave: rows, files, events."""
    with transaction() as session:
        rows = [
            session.scalars(select(func.count()).select_from(table)).one()
            for table in (Artifact, Evaluation, EngineDemand)
        ]
    files = sorted(str(path) for path in get_settings().home.rglob("*") if path.is_file())
    return rows, files, [(event.seq, event.type) for event in events(job_id)]


@pytest.mark.parametrize(
    ("heartbeat", "then"),
    [("0.2", "look\n"), ("3600", "go on\n")],
    ids=["notices", "does-not-notice"],
)
def test_a_frozen_worker_applies_nothing(heartbeat: str, then: str) -> None:
    job_id = make_job()
    drain(job_id, until="select")
    (chunk_id,) = ready(job_id)
    worker = start(chunk_id, heartbeat)
    worker.send_signal(signal.SIGSTOP)
    while not kernel.reap():  # by the real clock
        time.sleep(0.05)
    assert run_one(chunk_id, "another", HANDLERS) is True
    done, before = chunk(chunk_id), there_is(job_id)
    worker.send_signal(signal.SIGCONT)
    said, _ = worker.communicate(then, timeout=120)
    assert said == "False\n" and worker.returncode == 0
    assert there_is(job_id) == before
    after = chunk(chunk_id)
    assert (after.counts, after.artifact_id) == (done.counts, done.artifact_id)
    drain(job_id)
    assert job(job_id).state == "succeeded"


def test_the_same_worker_undisturbed_leaves_all_these_traces() -> None:
    """Or the test above would prove nothing."""
    job_id = make_job()
    drain(job_id, until="select")
    before = there_is(job_id)
    worker = start(ready(job_id)[0], "0.2")
    assert worker.communicate("go on\n", timeout=120)[0] == "True\n"
    rows, files, said = there_is(job_id)
    assert [now - then for now, then in zip(rows, before[0], strict=True)] == [2, 1, 1]
    assert len(files) == len(before[1]) + 4  # two files and their manifests
    assert "late.words" in [type_ for _, type_ in said]
