"""The work kernel on a real Postgres: every promise of docs/work-kernel.md, one test each."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import TextClause, delete, func, select, text
from sqlalchemy.exc import OperationalError

from selftaught.artifacts import publish_rows, resolve
from selftaught.contracts import Problem
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Iteration, Outbox, Stage
from selftaught.inference import EngineUnavailable
from selftaught.keeping import erase
from selftaught.work import control, kernel, planning, relay
from selftaught.work.kernel import JobFailure, Lease, LeaseLost, Result
from selftaught.work.worker import Handler, run_one
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

pytestmark = pytest.mark.usefixtures("database")


def expire(chunk_id: str) -> None:
    """As if the holder had been silent for a lease's length."""
    with transaction() as session:
        session.execute(
            text("UPDATE chunks SET lock_expires_at = now() - interval '1 s' WHERE id = :id"),
            {"id": chunk_id},
        )


def claimed(chunk_id: str) -> Lease:
    lease = kernel.claim(chunk_id, "test")
    assert lease is not None
    return lease


def outbox(job_id: str) -> list[str]:
    with transaction() as session:
        query = select(Outbox.chunk_id).join(Chunk).where(Chunk.job_id == job_id)
        return list(session.scalars(query.order_by(Outbox.id)))


def take() -> list[str]:
    """As a relay takes messages out, here to be lost."""
    with transaction() as session:
        return [row.chunk_id for row in session.execute(relay.TAKE)]


def test_a_job_runs_through_all_stages_to_success() -> None:
    job_id = make_job(iterations=2)
    drain(job_id)
    assert job(job_id).state == "succeeded"
    with transaction() as session:
        rows = session.execute(
            select(Iteration.number, Stage.kind, Stage.state, Stage.chunks, Stage.chunks_done)
            .join(Stage, Stage.iteration_id == Iteration.id)
            .where(Iteration.job_id == job_id)
            .order_by(Iteration.number, Stage.position)
        ).all()
    assert [(number, kind) for number, kind, *_ in rows] == [
        *((0, kind) for kind in planning.SEED_STAGES),
        *((1, kind) for kind in planning.LOOP_STAGES),
        *((2, kind) for kind in planning.LOOP_STAGES),
    ]
    assert all(state == "succeeded" and chunks == done for *_, state, chunks, done in rows)


def test_iterations_take_fresh_instructions_and_say_when_they_start_over() -> None:
    job_id = make_job(iterations=3)
    drain(job_id)
    with transaction() as session:
        inputs = session.execute(
            select(Iteration.number, Chunk.input)
            .join(Stage, Stage.iteration_id == Iteration.id)
            .join(Chunk, Chunk.stage_id == Stage.id)
            .where(Stage.kind == "pair", Iteration.job_id == job_id)
            .order_by(Iteration.number, Chunk.position)
        ).all()
    taken: dict[int, list[int]] = {}
    for number, entry in inputs:
        rows = range(entry["offset"], entry["offset"] + entry["limit"])
        taken.setdefault(number, []).extend(rows)
    assert taken[0] == [0, 1, 2, 3]
    assert taken[1] == list(range(4, 12))
    assert taken[2] == list(range(12, 20))
    assert taken[3] == list(range(4, 12))
    assert [e.data["iteration"] for e in events(job_id) if e.type == "instructions.reused"] == [3]


def test_events_are_numbered_without_gaps_under_concurrent_writers() -> None:
    job_id = make_job()
    lease = claimed(ready(job_id)[0])
    threads = [
        threading.Thread(target=lambda: [lease.say("noise", {}) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [event.seq for event in events(job_id)]
    assert found == list(range(1, len(found) + 1))
    assert len([e for e in events(job_id) if e.type == "noise"]) == 80


def test_a_chunk_has_one_holder() -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    leases: list[Lease | None] = []
    threads = [
        threading.Thread(target=lambda: leases.append(kernel.claim(chunk_id, "test")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([lease for lease in leases if lease is not None]) == 1


def test_a_second_message_for_a_finished_chunk_does_nothing() -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    assert run_one(chunk_id, "test", HANDLERS) is True
    seen = len(events(job_id))
    assert run_one(chunk_id, "test", HANDLERS) is False
    assert len(events(job_id)) == seen
    assert run_one("no-such-chunk", "test", HANDLERS) is False


def test_a_dead_lease_is_requeued_and_the_old_holder_is_discarded() -> None:
    job_id = make_job()
    drain(job_id, until="select")
    (chunk_id,) = ready(job_id)
    old = claimed(chunk_id)
    expire(chunk_id)
    assert kernel.reap() == 1
    assert chunk(chunk_id).state == "ready"
    new = claimed(chunk_id)
    assert new.attempt == 2

    late = HANDLERS["select"].run(old)
    assert late.artifact is not None
    assert kernel.finish(old, late) is False
    assert not resolve(late.artifact.path).exists(), "a discarded result leaves no file"
    assert chunk(chunk_id).state == "running", "the new holder still works"

    assert kernel.finish(new, HANDLERS["select"].run(new)) is True
    drain(job_id)
    assert job(job_id).state == "succeeded"
    with transaction() as session:
        paths = session.scalars(select(Artifact.path)).all()
        assert len(paths) == len(set(paths))
        kept = select(func.count()).select_from(Chunk).where(Chunk.id == chunk_id)
        assert session.scalar(kept.where(Chunk.artifact_id.is_not(None))) == 1


def test_a_living_lease_is_not_reaped_and_heartbeats_extend_it() -> None:
    job_id = make_job()
    lease = claimed(ready(job_id)[0])
    before = chunk(lease.chunk_id).lock_expires_at
    assert kernel.reap() == 0
    assert kernel.renew(lease) is True
    after = chunk(lease.chunk_id).lock_expires_at
    assert before is not None and after is not None and after > before


def test_a_holder_that_lost_its_lease_is_told_at_its_next_step() -> None:
    job_id = make_job()
    lease = claimed(ready(job_id)[0])
    expire(lease.chunk_id)
    kernel.reap()
    assert kernel.renew(lease) is False
    with kernel.Heartbeat(lease):
        assert lease.lost.wait(timeout=30)
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_worker_lost_too_often_fails_the_job_with_a_typed_reason() -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    for _ in range(3):
        claimed(chunk_id)
        expire(chunk_id)
        kernel.reap()
    failed = job(job_id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert (failed.error["code"], failed.error["fault"]) == ("worker_lost", "system")
    assert [e.type for e in events(job_id)].count("chunk.requeued") == 2
    assert events(job_id)[-1].type == "job.failed"


def test_a_crashing_step_is_tried_again_then_ends_the_job() -> None:
    job_id = make_job()

    def broken(_lease: Lease) -> Result:
        raise RuntimeError("disk on fire")

    drain(job_id, with_run("select", broken))
    failed = job(job_id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "internal_error"
    assert "disk on fire" in failed.error["detail"]
    assert ready(job_id) == []


def test_a_failure_of_the_users_is_not_tried_again() -> None:
    job_id = make_job()

    def refuse(_lease: Lease) -> Result:
        raise JobFailure("model_load_failed", "The model cannot be loaded", "no config.json")

    drain(job_id, with_run("register", refuse))
    failed = job(job_id)
    assert failed.error is not None
    assert (failed.error["code"], failed.error["fault"]) == ("model_load_failed", "user")
    assert "chunk.requeued" not in [e.type for e in events(job_id)]


def test_a_stage_without_input_fails_the_job_and_says_which() -> None:
    job_id = make_job()
    drain(job_id, with_run("curate", lambda lease: Result(artifact=_empty(lease))))
    failed = job(job_id)
    assert failed.error is not None
    assert failed.error["code"] == "no_usable_rows"
    assert "'train'" in failed.error["detail"]


def test_a_seed_that_cannot_judge_is_told_in_figures() -> None:
    def judge(lease: Lease) -> Result:
        return Result(
            counts={"judgments_sampled": 1500, "judgments_right": 8},
            artifact=publish_rows("judgments", lease.path("judge"), [{"n": 0}]),
        )

    def curate(lease: Lease) -> Result:
        counts = {"inputs": 16, "dropped_none_right": 9, "dropped_other_order": 5}
        return Result(counts={**counts, "dropped_disagree": 2}, artifact=_empty(lease))

    job_id = make_job(curate={"agree": True})
    drain(job_id, {**HANDLERS, "judge": Handler(judge), "curate": Handler(curate)})
    error = job(job_id).error
    assert error is not None
    assert error["detail"] == (
        "iteration 1: the stage before 'train' left no usable rows: 32 of 6,000 judgments were "
        "right, and 1 of 8 pairs had right ones in both orders. A seed that cannot judge these "
        "prompts is to be replaced: docs/how-to/own-model.md"
    )


def _empty(lease: Lease):  # type: ignore[no-untyped-def]
    from selftaught.artifacts import publish_rows

    return publish_rows(lease.kind, lease.path(lease.kind), [])


def test_cancel_ends_waiting_chunks_and_waits_for_the_running_one() -> None:
    job_id = make_job()
    drain(job_id, until="judge")
    running = claimed(ready(job_id)[0])
    with transaction() as session:
        control.cancel_job(session, job_id)
    assert job(job_id).state == "cancelling"
    assert ready(job_id) == []
    assert kernel.renew(running) is False

    assert kernel.finish(running, HANDLERS["judge"].run(running)) is False
    ended = job(job_id)
    assert ended.state == "cancelled" and ended.finished_at is not None
    assert events(job_id)[-1].type == "job.cancelled"
    with pytest.raises(control.JobRefuses), transaction() as session:
        control.cancel_job(session, job_id)
    with transaction() as session:
        states = set(session.scalars(select(Stage.state).where(Stage.job_id == job_id)))
    assert "running" not in states


def test_cancel_closes_a_job_whose_worker_died() -> None:
    job_id = make_job()
    lease = claimed(ready(job_id)[0])
    with transaction() as session:
        control.cancel_job(session, job_id)
    expire(lease.chunk_id)
    kernel.reap()
    assert job(job_id).state == "cancelled"


def test_the_outbox_is_written_with_the_chunk_and_forgotten_chunks_ring_again(
    database: Servers,
) -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    assert outbox(job_id) == [chunk_id]
    take()  # a relay that dies before it sends
    assert outbox(job_id) == []
    redis = Redis.from_url(database.redis_url)
    redis.delete("trainer")
    relay.rering(redis)
    assert outbox(job_id) == [], "too early"
    with transaction() as session:
        session.execute(text("UPDATE chunks SET rung_at = now() - interval '1 hour'"))
    redis.rpush("trainer", "a message")
    relay.rering(redis)
    assert outbox(job_id) == [], "it may be among those that wait"
    redis.delete("trainer")
    relay.rering(redis)
    relay.rering(redis)
    assert outbox(job_id) == [chunk_id], "once, not twice"


def test_a_stopping_worker_gives_its_chunk_back_uncounted() -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    lease = claimed(chunk_id)
    kernel.let_go(lease)
    assert lease.lost.is_set()
    assert (chunk(chunk_id).state, chunk(chunk_id).attempt) == ("ready", 0)
    assert events(job_id)[-1].type == "chunk.returned"
    assert kernel.finish(lease, Result()) is False, "what it still finishes is discarded"
    other = claimed(chunk_id)
    kernel.let_go(lease)
    assert chunk(chunk_id).lock_token == other.token, "not its to give back any more"


def test_an_endpoint_that_is_away_is_asked_again_later() -> None:
    job_id = make_job()

    def away(_lease: Lease) -> Result:
        raise EngineUnavailable("nobody there")

    (chunk_id,) = ready(job_id)
    run_one(chunk_id, "test", with_run("register", away))
    assert chunk(chunk_id).state == "ready"
    told = events(job_id)[-1]
    assert told.type == "chunk.requeued" and told.data["delay_seconds"] == 60


def test_a_delayed_message_waits_for_its_time_and_no_longer() -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    assert take() == [chunk_id]
    problem = Problem(code="away", title="Away", detail="nobody there", fault="system")
    kernel.fail(claimed(chunk_id), problem, retry=True, delay=60)
    assert outbox(job_id) == [chunk_id] and take() == []
    relay.rering_all()
    assert outbox(job_id) == [chunk_id], "not announced a second time, without the delay"
    with transaction() as session:
        session.execute(
            text("UPDATE outbox SET created_at = created_at - make_interval(secs => 60)")
        )
    assert take() == [chunk_id]


def test_a_starting_relay_announces_what_a_dead_one_took() -> None:
    job_id = make_job()
    assert take() == ready(job_id) and outbox(job_id) == []
    relay.rering_all()
    assert outbox(job_id) == ready(job_id)


@pytest.mark.parametrize("statement", [relay.RERING, relay.FIRST_RING], ids=["again", "first"])
def test_a_chunk_that_is_being_changed_holds_up_no_other_ones(statement: TextClause) -> None:
    """Who changes many chunks locks them in another order than that of their turn: waiting for one
    while others are locked would be a deadlock."""
    job_id = make_job()
    drain(job_id, until="judge")
    first, *others = ready(job_id)
    with transaction() as session:
        session.execute(delete(Outbox))
        rung = {"at": None if statement is relay.FIRST_RING else dt.datetime(2000, 1, 1)}
        session.execute(text("UPDATE chunks SET rung_at = :at, created_at = '2000-01-01'"), rung)
    with transaction() as changing:
        changing.execute(text("SELECT FROM chunks WHERE id = :id FOR UPDATE"), {"id": first})
        with transaction() as session:
            session.execute(text("SET LOCAL lock_timeout = '5s'"))
            session.execute(statement, {"age": 0, "queues": ["generator"]})
    assert outbox(job_id) == others


def test_messages_of_a_deleted_job_do_not_stop_the_relay(
    database: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, other = make_job(), make_job()
    away = relay.celery_app("trainer")

    def deleted_meanwhile(*_args: Any, **_more: Any) -> None:
        with transaction() as session:
            control.cancel_job(session, job_id)
        with transaction() as session:
            erase.job(session, job_id)
        raise OSError("Redis is away")

    monkeypatch.setattr(away, "send_task", deleted_meanwhile)
    assert relay.send_pending({"trainer": away}) == 0
    assert outbox(other) == ready(other)


def test_chunks_that_nobody_announced_are_announced_when_their_queue_is_empty(
    database: Servers,
) -> None:
    job_id = make_job()
    (chunk_id,) = ready(job_id)
    with transaction() as session:
        session.execute(delete(Outbox))
    redis = Redis.from_url(database.redis_url)
    redis.delete("trainer")
    relay.rering(redis)
    assert outbox(job_id) == [], "too early"
    with transaction() as session:
        session.execute(text("UPDATE chunks SET created_at = now() - interval '1 hour'"))
        for position in range(1, 40):
            more = {"id": f"{chunk_id}-{position}", "at": position, "of": chunk_id}
            session.execute(
                text(
                    "INSERT INTO chunks (id, job_id, stage_id, position, kind, queue, state, input,"
                    " created_at) SELECT :id, job_id, stage_id, :at, kind, queue, state, input,"
                    " created_at FROM chunks WHERE id = :of"
                ),
                more,
            )
    redis.rpush("trainer", "a message")
    relay.rering(redis)
    assert outbox(job_id) == []
    redis.delete("trainer")
    relay.rering(redis)
    assert outbox(job_id) == [chunk_id, *(f"{chunk_id}-{n}" for n in range(1, 32))]


def test_a_result_waits_until_postgres_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = make_job()
    drain(job_id, until="select")
    (chunk_id,) = ready(job_id)
    real, tries = kernel.finish, 0

    def finish(*args: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OperationalError("COMMIT", {}, Exception("server closed the connection"))
        return real(*args)

    monkeypatch.setattr(kernel, "finish", finish)
    assert run_one(chunk_id, "test", HANDLERS) is True
    assert tries == 2 and chunk(chunk_id).state == "succeeded"


def test_a_result_published_twice_is_published_once_and_keeps_its_file() -> None:
    """The connection broke after the commit: the holder cannot know, and tries again."""
    job_id = make_job()
    drain(job_id, until="select")
    lease = claimed(ready(job_id)[0])
    result = HANDLERS["select"].run(lease)
    assert kernel.finish(lease, result) is True
    assert kernel.finish(lease, result) is False
    assert result.artifact is not None and resolve(result.artifact.path).exists()


def test_a_lost_event_is_not_a_lost_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = make_job()
    lease = claimed(ready(job_id)[0])

    def away(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(kernel, "emit", away)
    lease.say("noise", {})
    monkeypatch.undo()
    assert kernel.renew(lease) is True, "the work goes on"


def test_a_single_held_out_pair_cannot_both_choose_and_promote() -> None:
    job_id = make_job()

    def one_pair(lease: Lease) -> Result:
        rows = [{"n": 0}] if lease.chunk_id.endswith(".0") else []
        return Result(artifact=publish_rows("pair", lease.path("pair"), rows))

    drain(job_id, with_run("pair", one_pair))
    failed = job(job_id)
    assert failed.error is not None
    assert failed.error["code"] == "no_usable_rows" and "'validate'" in failed.error["detail"]


def test_an_artifact_is_whole_or_absent(tmp_path: Path) -> None:
    from selftaught.artifacts import Writer

    with pytest.raises(RuntimeError), Writer("test", "a/half.jsonl") as writer:
        writer.write({"n": 1})
        raise RuntimeError("killed")
    folder = resolve("a")
    assert list(folder.iterdir()) == []
    with pytest.raises(ValueError, match="leaves its folder"):
        resolve("../outside")


def test_the_database_refuses_a_lease_without_a_running_chunk() -> None:
    from sqlalchemy.exc import IntegrityError

    job_id = make_job()
    with pytest.raises(IntegrityError, match="chunks_lease_iff_running"), transaction() as session:
        session.execute(
            text("UPDATE chunks SET lock_token = 'x' WHERE job_id = :id"), {"id": job_id}
        )
