"""What is counted for ever, and the trace that a chunk keeps whatever becomes of its workers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from selftaught import logs, telemetry, totals
from selftaught.database import transaction
from selftaught.settings import get_settings
from selftaught.work import kernel, relay
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import run_one
from tests.conftest import Servers
from tests.traced import traced
from tests.work.helpers import HANDLERS, job, make_job, ready, with_run

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def found() -> dict[totals.Key, float]:
    with transaction() as session:
        return totals.read(session)


def expire(chunk_id: str) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE chunks SET lock_expires_at = now() - interval '1 s' WHERE id = :id"),
            {"id": chunk_id},
        )


def test_an_applied_result_is_counted_once(database: Servers) -> None:
    counts = {"prompt_tokens": 5, "tokens": 7, "judgments_unparsable": 2}
    handlers = with_run("register", lambda lease: Result(counts=counts, gpu_seconds=1.5))
    (chunk_id,) = ready(make_job())
    assert run_one(chunk_id, "test", handlers)
    assert not run_one(chunk_id, "test", handlers)
    counted = found()
    assert counted.pop(("seconds", "register", "sum")) > 0
    bounds = [key for key in counted if key[0] == "seconds"]
    assert [counted.pop(bound) for bound in bounds] == [1], "in one bucket"
    assert counted == {
        ("chunks", "register", "succeeded"): 1,
        ("tokens", "register", "prompt"): 5,
        ("tokens", "register", "completion"): 7,
        ("parse_failures", "register", ""): 2,
        ("device_seconds", "register", ""): 1.5,
    }


def test_a_result_that_comes_too_late_is_not_counted(database: Servers) -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)

    def lost(lease: Lease) -> Result:
        expire(lease.chunk_id)
        assert kernel.reap() == 1
        return Result(counts={"tokens": 7})

    assert not run_one(chunk_id, "test", with_run("register", lost))
    assert found() == {("lease_expiries", "register", ""): 1, ("chunks", "register", "retried"): 1}


def test_a_failure_and_what_is_given_back_are_counted(database: Servers) -> None:
    def fails(lease: Lease) -> Result:
        raise kernel.JobFailure("nothing", "Nothing", "there is nothing")

    (chunk_id,) = ready(make_job())
    lease = kernel.claim(chunk_id, "test")
    assert lease is not None
    kernel.let_go(lease)
    run_one(chunk_id, "test", with_run("register", fails))
    assert found() == {("chunks", "register", "returned"): 1, ("chunks", "register", "failed"): 1}


def test_what_is_rolled_back_is_not_counted(database: Servers) -> None:
    with pytest.raises(ZeroDivisionError), transaction() as session:
        totals.add(session, "chunks", "judge", "failed")
        raise ZeroDivisionError
    assert found() == {}


def test_many_count_at_once_and_none_deadlock(database: Servers) -> None:
    keys = [("chunks", "judge", part) for part in ("succeeded", "failed", "retried")]

    def count(number: int) -> None:
        for turn in range(10):
            with transaction() as session:
                for name, stage, part in keys if (number + turn) % 2 else reversed(keys):
                    totals.add(session, name, stage, part)

    threads = [threading.Thread(target=count, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found() == dict.fromkeys(keys, 80.0)


class Redis:
    """Takes messages; `headers` of the last one."""

    headers: dict[str, str]

    def send_task(self, *_: Any, headers: dict[str, str], **__: Any) -> None:
        self.headers = headers


def test_a_chunk_keeps_its_jobs_trace_over_retries(database: Servers) -> None:
    redis = Redis()
    apps: Any = {"trainer": redis, "generator": redis}
    with traced() as exporter:
        with logs.bound(request_id="req_1"), telemetry.span("POST", "server", CALLER):
            job_id = make_job()
        (chunk_id,) = ready(job_id)
        assert relay.send_pending(apps) == 1
        first = redis.headers["traceparent"]
        assert kernel.claim(chunk_id, "dies") is not None
        expire(chunk_id)
        assert kernel.reap() == 1 and relay.send_pending(apps) == 1
        again = redis.headers["traceparent"]
        assert again != first and again[:35] == first[:35] == CALLER[:35]

        def work(lease: Lease) -> Result:
            assert logs.current("request_id") == "req_1"
            assert logs.current("attempt") == "2"
            return HANDLERS["register"].run(lease)

        assert run_one(chunk_id, "test", with_run("register", work), again)
        assert relay.send_pending(apps) == 1
        assert redis.headers["traceparent"][:35] == CALLER[:35], "the next stage, too"
        spans = {span.name: span for span in exporter.get_finished_spans()}
    process = spans["process register"]
    assert process.parent is not None and f"{process.parent.span_id:016x}" == again[36:52]
    assert process.attributes is not None
    assert process.attributes["selftaught.request_id"] == "req_1"
    assert job(job_id).traceparent is not None


def test_a_job_that_nobody_traced_has_no_header(database: Servers) -> None:
    make_job()
    redis = Redis()
    with traced() as exporter:
        assert relay.send_pending({"trainer": redis}) == 1  # type: ignore[dict-item]
    assert redis.headers == {} and exporter.get_finished_spans() == ()
    assert get_settings().otlp_endpoint == ""
