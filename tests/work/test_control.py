"""Pause, resume and retry on the kernel: what is asked of a job, whenever it comes."""

from __future__ import annotations

import datetime as dt
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from selftaught import stopping
from selftaught.contracts import Problem
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Job, ModelVersion
from selftaught.ids import new_id
from selftaught.inference import open_engine
from selftaught.inference.local import LocalEngine
from selftaught.keeping import erase
from selftaught.settings import get_settings
from selftaught.work import control, kernel, pipeline, relay
from selftaught.work.kernel import JobFailure, Lease, Result
from selftaught.work.worker import run_one
from tests import tiny
from tests.work.helpers import (
    HANDLERS,
    chunk,
    drain,
    events,
    job,
    make_dataset,
    make_job,
    ready,
    stages,
    with_run,
)
from tests.work.test_kernel import claimed, expire, outbox, take

pytestmark = pytest.mark.usefixtures("database")

AWAY = Problem(code="away", title="Away", detail="nobody there", fault="system")


def ask(what: Callable[[Session, str], None], job_id: str) -> None:
    with transaction() as session:
        what(session, job_id)


def refusal(what: Callable[[Session, str], None], job_id: str) -> str:
    with pytest.raises(control.JobRefuses) as raised:
        ask(what, job_id)
    return raised.value.code


def types(job_id: str) -> list[str]:
    return [event.type for event in events(job_id)]


def fail(chunk_id: str) -> None:
    kernel.fail(claimed(chunk_id), AWAY, retry=False)


def test_a_paused_job_stands_still_and_goes_on_to_the_same_end() -> None:
    undisturbed = make_job()
    drain(undisturbed)
    job_id = make_job()
    drain(job_id, until="judge")
    waiting = ready(job_id)
    ask(control.pause_job, job_id)
    paused = job(job_id)
    assert paused.state == "paused" and paused.paused_at is not None
    assert kernel.claim(waiting[0], "test") is None, "a message finds nothing to do"
    assert ready(job_id) == waiting
    seen = types(job_id)
    ask(control.pause_job, job_id)
    assert types(job_id) == seen, "asking again changes nothing"
    take()  # its messages came to nothing
    relay.rering_all()
    with transaction() as session:
        session.execute(update(Chunk).values(rung_at=None, created_at=dt.datetime(2000, 1, 1)))
        session.execute(relay.FIRST_RING, {"age": 0, "queues": ["generator"]})
    assert outbox(job_id) == [], "nobody is asked to work on it"
    ask(control.resume_job, job_id)
    assert job(job_id).state == "running" and job(job_id).paused_at is None
    assert outbox(job_id) == waiting
    ask(control.resume_job, job_id)
    assert types(job_id)[-1] == "job.resumed" and outbox(job_id) == waiting
    drain(job_id)
    assert job(job_id).state == "succeeded"
    counts, twins = (
        {(number, stage.kind): stage.counts for number, of in stages(one).items() for stage in of}
        for one in (job_id, undisturbed)
    )
    assert counts == twins


def test_pause_waits_for_the_holder_who_gives_the_chunk_back_uncounted() -> None:
    job_id = make_job()
    drain(job_id, until="judge")
    lease = claimed(ready(job_id)[0])
    ask(control.pause_job, job_id)
    assert job(job_id).state == "pausing" and kernel.renew(lease) is False
    kernel.let_go(lease)
    assert job(job_id).state == "paused"
    given_back = chunk(lease.chunk_id)
    assert (given_back.state, given_back.attempt) == ("ready", 0)
    assert types(job_id)[-3:] == ["job.pausing", "chunk.returned", "job.paused"]


def test_a_result_that_comes_while_the_job_is_pausing_counts() -> None:
    job_id = make_job()
    drain(job_id, until="select")
    lease = claimed(ready(job_id)[0])
    ask(control.pause_job, job_id)
    assert kernel.finish(lease, HANDLERS["select"].run(lease)) is True
    assert job(job_id).state == "paused" and types(job_id)[-1] == "job.paused"
    assert chunk(ready(job_id)[0]).kind == "pair", "the next stage waits"
    ask(control.resume_job, job_id)
    drain(job_id)
    assert job(job_id).state == "succeeded"


def test_a_job_may_end_while_it_is_pausing() -> None:
    ended, failed = make_job(), make_job()
    drain(ended, until="gate")
    run_one(ready(ended)[0], "test", HANDLERS)  # of the seed
    drain(ended, until="gate")
    last = claimed(ready(ended)[0])
    ask(control.pause_job, ended)
    assert kernel.finish(last, HANDLERS["gate"].run(last)) is True
    assert job(ended).state == "succeeded"
    lease = claimed(ready(failed)[0])
    ask(control.pause_job, failed)
    kernel.fail(lease, AWAY, retry=False)
    assert job(failed).state == "failed"


def test_resume_before_the_holder_let_go_loses_nothing() -> None:
    job_id = make_job()
    lease = claimed(ready(job_id)[0])
    take()
    ask(control.pause_job, job_id)
    ask(control.resume_job, job_id)
    assert job(job_id).state == "running" and kernel.renew(lease) is True
    kernel.let_go(lease)  # it had noticed the pause
    assert outbox(job_id) == [lease.chunk_id]
    drain(job_id)
    assert job(job_id).state == "succeeded"


def test_a_lease_that_runs_out_pauses_the_job_too() -> None:
    job_id = make_job()
    lease = claimed(ready(job_id)[0])
    take()
    ask(control.pause_job, job_id)
    expire(lease.chunk_id)
    kernel.reap()
    assert job(job_id).state == "paused" and outbox(job_id) == []


def test_a_pause_during_a_long_step_counts_as_no_attempt() -> None:
    """A worker that loads a model for longer than its lease was not lost."""
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    for _ in range(get_settings().max_attempts + 1):
        lease = claimed(chunk_id)
        ask(control.pause_job, job_id)
        expire(chunk_id)
        assert kernel.reap() == 1
        left = chunk(chunk_id)
        assert (left.state, left.attempt, left.error) == ("ready", 0, None)
        assert job(job_id).state == "paused" and types(job_id)[-2:] == [
            "chunk.returned",
            "job.paused",
        ]
        kernel.let_go(lease)  # it has loaded it
        assert chunk(chunk_id).attempt == 0
        ask(control.resume_job, job_id)
    drain(job_id)
    assert job(job_id).state == "succeeded"


def test_a_worker_whose_job_was_deleted_drops_its_work() -> None:
    """Another chunk failed the job, and somebody deleted it, before this one noticed."""
    job_id = make_job()
    drain(job_id, until="judge")
    first, second, *_ = ready(job_id)

    def deleted_meanwhile(lease: Lease) -> Result:
        fail(second)
        with transaction() as session:
            gone = erase.job(session, job_id)
        erase.remove(gone)
        made = HANDLERS["judge"].run(lease)
        lease.say("words", {})
        assert lease.lost.is_set()
        return made

    assert run_one(first, "test", with_run("judge", deleted_meanwhile)) is False
    with transaction() as session:
        assert session.get(Job, job_id) is None
    assert not list((get_settings().artifacts_dir / "jobs").rglob("*.jsonl"))
    assert kernel.claim(first, "test") is None


def test_leases_of_a_deleted_job_end_quietly() -> None:
    job_id = make_job()
    drain(job_id, until="judge")
    first, second, *_ = ready(job_id)
    lease = claimed(first)
    fail(second)
    with transaction() as session:
        erase.job(session, job_id)
    kernel.fail(lease, AWAY, retry=True)
    kernel.let_go(lease)
    assert lease.lost.is_set()


def test_a_paused_job_can_be_cancelled_and_then_nothing_else() -> None:
    job_id = make_job()
    ask(control.pause_job, job_id)
    ask(control.cancel_job, job_id)
    assert job(job_id).state == "cancelled" and job(job_id).paused_at is None
    asked = (control.cancel_job, control.pause_job, control.resume_job, control.retry_job)
    assert {refusal(one, job_id) for one in asked} == {"job_finished"}
    other = make_job()
    claimed(ready(other)[0])
    ask(control.cancel_job, other)
    for one in (control.pause_job, control.resume_job, control.retry_job):
        assert refusal(one, other) == "job_cancelling"


def test_a_failed_stage_is_retried_and_what_it_finished_is_kept() -> None:
    job_id = make_job()
    drain(job_id, until="judge")
    first, second, third, fourth = ready(job_id)
    assert run_one(first, "test", HANDLERS) is True
    done = chunk(first).artifact_id
    held = claimed(third)
    fail(second)
    failed = job(job_id)
    assert failed.state == "failed" and failed.error is not None
    assert Counter(chunk(one).state for one in (first, second, third, fourth)) == {
        "succeeded": 1,
        "failed": 1,
        "cancelled": 2,
    }
    ask(control.retry_job, job_id)
    again = job(job_id)
    assert again.state == "running" and again.error is None and again.finished_at is None
    assert again.retried_at is not None
    assert outbox(job_id)[-3:] == [second, third, fourth]
    assert {chunk(one).attempt for one in (second, third, fourth)} == {0}
    said = [event.data for event in events(job_id) if event.type == "job.retried"]
    assert said == [{"stage": "judge", "chunks": 3}]
    assert kernel.renew(held) is False, "who held one of them does not hold it any more"
    assert kernel.finish(held, HANDLERS["judge"].run(held)) is False
    ask(control.retry_job, job_id)
    assert types(job_id).count("job.retried") == 1, "asking again changes nothing"
    drain(job_id)
    assert job(job_id).state == "succeeded"
    assert chunk(first).artifact_id == done and chunk(first).attempt == 1


def test_a_job_can_fail_and_be_retried_again_and_again() -> None:
    job_id = make_job()

    def refuse(_lease: Lease) -> Result:
        raise JobFailure("bad_data", "Bad", "data")

    for _ in range(3):
        drain(job_id, with_run("curate", refuse))
        assert job(job_id).state == "failed"
        assert {stage.state for of in stages(job_id).values() for stage in of} <= {
            "succeeded",
            "failed",
        }
        ask(control.retry_job, job_id)
    drain(job_id)
    assert job(job_id).state == "succeeded"
    numbers = [event.seq for event in events(job_id)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_stage_that_had_nothing_to_work_on_is_not_retried() -> None:
    job_id = make_job()
    drain(job_id, with_run("curate", lambda lease: Result()))
    assert job(job_id).state == "failed"
    assert refusal(control.retry_job, job_id) == "nothing_to_retry"
    assert job(job_id).state == "failed"


def test_a_job_whose_files_were_removed_is_not_retried() -> None:
    job_id = make_job()
    fail(ready(job_id)[0])
    with transaction() as session:
        session.get_one(Job, job_id).data_removed_at = func.now()
    assert refusal(control.retry_job, job_id) == "data_removed"


def failed_in(kind: str) -> str:
    """A job that has failed in the stage of this kind of its first iteration."""

    def refuse(lease: Lease) -> Result:
        if lease.iteration:
            raise JobFailure("bad_data", "Bad", "data")
        return HANDLERS[kind].run(lease)

    job_id = make_job(labelled=4)
    drain(job_id, with_run(kind, refuse))
    assert job(job_id).state == "failed"
    return job_id


@pytest.mark.parametrize("what", ["dataset", "labelled", "gate", "made", "role", "given", "file"])
def test_a_job_that_would_miss_something_is_not_retried(what: str) -> None:
    """Or a training would go on for hours, and end with nothing that its job could go on with."""
    job_id = failed_in("curate")
    of_others, gate = make_dataset(2), make_dataset(2, "labelled")
    with transaction() as session:
        row = session.get_one(Job, job_id)
        row.recipe = {**row.recipe, "gate": {**row.recipe["gate"], "labelled": [gate]}}
        seed = session.scalars(select(ModelVersion)).one()
        other = ModelVersion(id=new_id("ver"), model="m", number=0, path="", sha256="", lineage={})
        session.add(other)
        if what == "role":
            register = Chunk.job_id == job_id, Chunk.kind == "register"
            roles = {"roles": {"generator": other.id}}
            session.execute(update(Chunk).where(*register).values(metrics=roles))
        failed = session.scalars(select(Chunk).where(Chunk.state == "failed")).one()
        given = {"version": other.id} if what == "given" else {}
        failed.input = {**failed.input, **given, "examples": f"datasets/{of_others}.jsonl"}
    with transaction() as session:
        if what == "made":
            erase.version(session, seed.model, seed.number)
        elif what in ("role", "given"):
            erase.version(session, "m", 0)
        else:
            labelled = row.labelled_dataset_id
            of = {"dataset": row.dataset_id, "labelled": labelled, "gate": gate, "file": of_others}
            erase.dataset(session, str(of[what]))
    assert refusal(control.retry_job, job_id) == "data_removed"
    assert job(job_id).state == "failed"


def test_what_a_retried_job_needs_is_in_use_at_once() -> None:
    job_id = failed_in("curate")
    dataset = str(job(job_id).dataset_id)
    with transaction() as session:
        control.retry_job(session, job_id)
        with pytest.raises(OperationalError, match="lock timeout"), transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '100ms'"))
            erase.dataset(other, dataset)
    with pytest.raises(erase.InUse), transaction() as other:
        erase.dataset(other, dataset)


def test_who_changes_a_job_waits_for_who_is_changing_it() -> None:
    """What else happens to a job comes before or after, never between."""
    job_id = make_job()
    with transaction() as first:
        control.pause_job(first, job_id)
        for what in (pipeline.lock_job, kernel._lock):
            with pytest.raises(OperationalError, match="lock timeout"), transaction() as second:
                second.execute(text("SET LOCAL lock_timeout = '100ms'"))
                what(second, job_id)
    assert job(job_id).state == "paused"


def test_everything_at_once_leaves_one_truth() -> None:
    """Workers, and everybody asking everything: no deadlock, and the job can be brought to an
    end."""
    job_id = make_job(iterations=2)
    drain(job_id, until="judge")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for chunk_id in ready(job_id):
                run_one(chunk_id, "test", HANDLERS)
            relay_once()

    def relay_once() -> None:
        take()
        kernel.reap()

    def bother(what: Callable[[Session, str], None]) -> None:
        for _ in range(15):
            try:
                ask(what, job_id)
            except control.JobRefuses as refused:
                assert refused.code == "job_finished", refused.code

    workers = [threading.Thread(target=work) for _ in range(2)]
    asked = (control.pause_job, control.resume_job, control.retry_job)
    others = [threading.Thread(target=bother, args=[what]) for what in asked * 2]
    for thread in (*workers, *others):
        thread.start()
    for thread in others:
        thread.join()
    stop.set()
    for thread in workers:
        thread.join()
    if job(job_id).state != "succeeded":
        ask(control.resume_job, job_id)
    drain(job_id)
    assert job(job_id).state == "succeeded"
    with transaction() as session:
        query = select(Chunk.state, Chunk.artifact_id).where(Chunk.job_id == job_id)
        rows = session.execute(query).all()
        paths = session.scalars(select(Artifact.path)).all()
    assert {state for state, _ in rows} == {"succeeded"}
    assert len(paths) == len(set(paths))


def test_a_long_stage_that_stood_still_announces_what_it_had_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "ANNOUNCED", 2)
    job_id = make_job()
    drain(job_id, until="judge")
    chunks = ready(job_id)
    take()
    run_one(chunks[0], "test", HANDLERS)
    assert outbox(job_id) == [chunks[2]]
    ask(control.pause_job, job_id)
    take()
    ask(control.resume_job, job_id)
    assert outbox(job_id) == [chunks[1], chunks[2]]


def test_a_message_that_waits_for_its_time_is_not_doubled_by_resume() -> None:
    job_id = make_job()
    take()
    (chunk_id,) = ready(job_id)
    kernel.fail(claimed(chunk_id), AWAY, retry=True, delay=60)
    ask(control.pause_job, job_id)
    ask(control.resume_job, job_id)
    assert outbox(job_id) == [chunk_id]
    assert take() == [], "and its time has not come"


@pytest.mark.parametrize("what", [control.cancel_job, control.pause_job])
def test_work_in_the_middle_of_a_chunk_is_called_off(what: Callable[[Session, str], None]) -> None:
    job_id = make_job()
    drain(job_id, until="judge")
    (chunk_id, *_) = ready(job_id)
    begun = threading.Event()
    steps = 0

    model: Callable[[], object] = lambda: None  # noqa: E731 a weak reference, once there is one

    def endless(_lease: Lease) -> Result:
        nonlocal steps, model
        engine = open_engine("local", tiny.build(get_settings().home / "m"))
        assert isinstance(engine, LocalEngine)
        model = weakref.ref(engine.model)
        begun.set()
        while True:
            stopping.check()
            steps += 1
            time.sleep(0.01)

    handlers = with_run("judge", endless)
    worker = threading.Thread(target=run_one, args=(chunk_id, "test", handlers))
    worker.start()
    begun.wait()
    ask(what, job_id)
    worker.join()  # or never
    cancelled = what is control.cancel_job
    assert job(job_id).state == ("cancelled" if cancelled else "paused") and steps > 0
    left = chunk(chunk_id)
    assert (left.state, left.attempt) == (("cancelled", 1) if cancelled else ("ready", 0))
    assert model() is None, "and its memory is free"
