"""What hosts do to the work: clocks are wrong, disks are full, a process freezes where it hurts."""

from __future__ import annotations

import datetime as dt
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import InternalError, OperationalError

from selftaught.artifacts import publish_rows
from selftaught.database import get_engine, transaction
from selftaught.database import session as session_module
from selftaught.database.tables import Chunk, Iteration, Job, Outbox, Stage
from selftaught.settings import get_settings
from selftaught.work import control, kernel, pipeline, relay, worker
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import AWAY_DELAY, run_one
from services.api import views
from tests.conftest import Servers
from tests.work.helpers import (
    HANDLERS,
    chunk,
    drain,
    events,
    job,
    make_job,
    ready,
    with_run,
)
from tests.work.test_kernel import claimed, expire, outbox, take

pytestmark = pytest.mark.usefixtures("database")


@pytest.mark.parametrize("days", [-1, 1], ids=["behind", "ahead"])
def test_a_hosts_clock_decides_nothing(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole job by a host whose clock is a day off, and leases beside it."""
    off = dt.timedelta(days=days)
    real_datetime, real_time = dt.datetime, time.time

    class Shifted(real_datetime):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return real_datetime.now(tz) + off

    monkeypatch.setattr(dt, "datetime", Shifted)
    monkeypatch.setattr(time, "time", lambda: real_time() + off.total_seconds())
    with transaction() as session:
        began = session.scalars(select(func.clock_timestamp())).one()
    held = claimed(ready(make_job())[0])
    job_id = make_job()
    with transaction() as session:
        control.pause_job(session, job_id)
        control.resume_job(session, job_id)
    drain(job_id)
    assert job(job_id).state == "succeeded"
    assert kernel.reap() == 0 and kernel.renew(held) is True, "a living lease is left alone"
    expire(held.chunk_id)
    assert kernel.reap() == 1
    assert held.chunk_id in take(), "and its message goes out at once"
    with transaction() as session:
        ended = session.scalars(select(func.clock_timestamp())).one()
        rows = [
            row
            for table in (Job, Iteration, Stage, Chunk)
            for row in session.scalars(select(table))
        ]
        times = [
            when
            for row in rows
            for name in ("created_at", "started_at", "finished_at")
            if (when := getattr(row, name)) is not None
        ]
        assert len(times) > 50 and min(times) >= began and max(times) <= ended
        open_iterations = session.scalars(select(Iteration).where(Iteration.finished_at.is_(None)))
        (out,) = views.iterations(session, open_iterations.all())
    assert out.seconds is not None and 0 <= out.seconds <= (ended - began).total_seconds() + 60


@contextmanager
def no_room(limit: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `limit` bytes; the kernel refuses, as on a full
    disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def long_select(lease: Lease) -> Result:
    rows = ({"id": str(n), "instruction": "x" * 100} for n in range(1000))
    with no_room(50_000):
        return Result(artifact=publish_rows("selection", lease.path("select"), rows))


def test_a_full_disk_is_waited_for_and_leaves_nothing() -> None:
    job_id = make_job()
    drain(job_id, until="select")
    (chunk_id,) = ready(job_id)
    take()
    for attempt in range(1, get_settings().max_attempts + 1):
        assert run_one(chunk_id, "test", with_run("select", long_select)) is False
        folder = get_settings().artifacts_dir / "jobs" / job_id
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        said = events(job_id)[-1]
        if attempt < get_settings().max_attempts:
            assert said.type == "chunk.requeued"
            assert said.data["error"]["code"] == "storage_full"
            assert said.data["delay_seconds"] == AWAY_DELAY * 4 ** (attempt - 1)
            with transaction() as session:
                due = Outbox.created_at - func.clock_timestamp()
                waits = session.scalars(select(func.extract("epoch", func.max(due)))).one()
            assert waits > 30
    error = job(job_id).error
    assert error is not None and (error["code"], error["fault"]) == ("storage_full", "system")
    with transaction() as session:
        control.retry_job(session, job_id)
    drain(job_id, HANDLERS)
    assert job(job_id).state == "succeeded" and chunk(chunk_id).attempt == 1


def test_no_room_for_a_manifest_leaves_nothing() -> None:
    with no_room(10), pytest.raises(OSError, match="too large"):
        publish_rows("rows", "a/rows.jsonl", [{}])
    assert list((get_settings().artifacts_dir / "a").iterdir()) == []


def test_a_process_that_freezes_in_a_transaction_holds_nobody_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "IDLE_SECONDS", 1)
    get_engine.cache_clear()
    lost, other = claimed(ready(make_job())[0]), claimed(ready(make_job())[0])
    expire(other.chunk_id)
    expire(lost.chunk_id)
    with pytest.raises((OperationalError, InternalError)), transaction() as frozen:
        pipeline.lock_job(frozen, lost.job_id)
        assert kernel.reap() == 1, "the other job's chunk, at once"
        assert chunk(lost.chunk_id).state == "running"
        while not kernel.reap():
            time.sleep(0.05)
        pipeline.lock_job(frozen, lost.job_id)  # it wakes, and its transaction is gone
    assert chunk(lost.chunk_id).state == "ready"


def test_messages_wait_while_redis_is_away(
    database: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}/0")
    get_settings.cache_clear()
    assert relay.send_pending({}) == 0
    assert outbox(job_id) == ready(job_id)
    monkeypatch.setenv("REDIS_URL", database.redis_url)
    get_settings.cache_clear()
    assert relay.send_pending({}) == 1
    assert outbox(job_id) == []


def test_a_worker_that_is_stopping_gives_back_what_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = make_job()
    take()
    (chunk_id,) = ready(job_id)
    monkeypatch.setattr(worker, "_stopping", True)
    assert run_one(chunk_id, "test", HANDLERS) is False
    assert (chunk(chunk_id).state, chunk(chunk_id).attempt) == ("ready", 0)
    assert outbox(job_id) == [chunk_id], "its message is sent again, to another worker"
