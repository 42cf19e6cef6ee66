"""What webhooks are told: with the event or not at all, of their project, and what they want."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text

from selftaught import aliases, canaries, tenancy, webhooks
from selftaught.contracts.webhooks import TYPES
from selftaught.database import transaction
from selftaught.database.tables import Job, Webhook
from selftaught.promotions import Asked, promote
from selftaught.work import control, pipeline
from tests.api.helpers import add_versions
from tests.webhooks.helpers import DEFAULT, add, add_project, change, deliveries, tell, told
from tests.webhooks.receiver import wait_until
from tests.work.helpers import drain, make_job

pytestmark = pytest.mark.usefixtures("database")


def test_a_job_tells_of_its_life_by_numbered_events() -> None:
    hook = add("https://example.com/", "job.*", "iteration.*")
    job_id = make_job()
    drain(job_id)
    found = told(hook.id)
    assert [type_ for type_, _ in found] == [
        "job.created",
        "iteration.succeeded",
        "iteration.succeeded",
        "job.succeeded",
    ]
    assert all(data["job"] == job_id and data["kind"] == "loop" for _, data in found)
    numbers = [data["seq"] for _, data in found]
    assert numbers == sorted(numbers)
    assert [data["iteration"] for type_, data in found if type_[0] == "i"] == [0, 1]
    payload = json.loads(deliveries(hook.id)[0].payload)
    assert payload.keys() == {"type", "timestamp", "data"}
    assert payload["type"] == "job.created" and payload["timestamp"].endswith("Z")


def test_a_failed_and_a_cancelled_job_tell_so_and_why() -> None:
    add("https://example.com/", "job.failed", "job.cancelled")
    failed, cancelled = make_job(), make_job()
    error = {"title": "t", "detail": "d" * 9000, "code": "worker_lost", "fault": "system"}
    with transaction() as session:
        pipeline.fail_job(session, session.get_one(Job, failed), error)
        control.cancel_job(session, cancelled)
    (first, data), (second, other) = told()
    assert (first, data["job"], data["error"]["code"]) == ("job.failed", failed, "worker_lost")
    assert len(data["error"]["detail"]) < 9000  # a payload is small
    assert (second, other["job"]) == ("job.cancelled", cancelled)


def test_a_job_that_stands_still_and_goes_on_tells_so() -> None:
    add("https://example.com/", "job.*")
    job_id = make_job()
    with transaction() as session:
        control.pause_job(session, job_id)
        control.resume_job(session, job_id)
    said = [type_ for type_, _ in told()]
    assert said == ["job.created", "job.pausing", "job.paused", "job.resumed"]


def test_aliases_canaries_and_promotions_tell_of_their_moves() -> None:
    add()
    add_versions("m", [0, 1, 2])
    with transaction() as session:
        aliases.move(session, "m", "prod", 0, "first")
        aliases.move(session, "m", "prod", 0, "no move")
        row = aliases.move(session, "m", "prod", 1, "second")
        version = aliases.get_version(session, "m", 2)
        canaries.start(session, row, version, "share", 0.1, "try it")
        aliases.rollback(session, "m", "prod")
        promote(session, version, "latest", Asked("good"))
    found = told()
    assert [(type_, data.get("version"), data.get("before")) for type_, data in found] == [
        ("alias.moved", "m:0", None),
        ("alias.moved", "m:1", "m:0"),
        ("canary.started", "m:2", None),
        ("canary.ended", "m:2", None),
        ("alias.rolled_back", "m:0", "m:1"),
        ("alias.moved", "m:2", None),
        ("promotion.decided", "m:2", None),
    ]
    assert found[-1][1]["promoted"] is True and found[3][1]["reason"].startswith("the alias moved")


def test_what_is_rolled_back_was_never_told() -> None:
    add()
    with pytest.raises(RuntimeError), transaction() as session:
        webhooks.tell(session, DEFAULT, "job.created", {})
        session.flush()
        raise RuntimeError
    assert not deliveries()


def test_who_is_told_is_enabled_of_the_project_and_wants_it() -> None:
    add_project("other")
    every, jobs, one = (
        add(),
        add("https://a.example/", "job.*"),
        add("https://b.example/", "job.failed"),
    )
    off = add("https://c.example/")
    change(off.id, state="disabled", disabled_reason="asked")
    theirs = add(project="other")
    tell("job.created")
    tell("job.failed")
    tell("alias.moved")
    tell("job.failed", project="other")
    assert len(told(every.id)) == 3
    assert [type_ for type_, _ in told(jobs.id)] == ["job.created", "job.failed"]
    assert [type_ for type_, _ in told(one.id)] == ["job.failed"]
    assert not told(off.id)
    assert [one.project_id for one in deliveries(theirs.id)] == ["other"]


def test_every_type_there_is_has_a_teller() -> None:
    """A type that nobody tells of would be a promise that is not kept; no state goes untold."""
    root = Path(webhooks.__file__).parents[1]
    files = [*root.glob("selftaught/**/*.py"), *root.glob("services/**/*.py")]
    code = "".join(file.read_text() for file in files if file.parent.name != "contracts")
    assert not [name for name in TYPES if f'"{name}"' not in code]
    emitted = set(re.findall(r'emit\([^"()]*"(job\.\w+)"', code))
    assert {"job.created", "job.succeeded"} <= emitted <= TYPES


def waits_for_a_lock() -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with transaction() as session:
        return bool(session.scalar(text(query)))


def test_a_webhook_that_is_being_deleted_holds_no_event_up_for_good_and_breaks_none() -> None:
    hook, other = add(), add()
    with transaction() as session:
        doomed = session.scalars(select(Webhook).filter_by(id=hook.id).with_for_update()).one()
        session.delete(doomed)
        session.flush()
        thread = threading.Thread(target=tell)
        thread.start()
        wait_until(waits_for_a_lock, "the event waits for the deletion")
    thread.join()
    assert [one.webhook_id for one in deliveries()] == [other.id]


def test_what_a_project_does_is_told_to_its_own_webhooks() -> None:
    add_project("other")
    mine, theirs = add(), add(project="other")
    with tenancy.inside("other"):
        add_versions("m", [0])
        with transaction() as session:
            promote(session, aliases.get_version(session, "m", 0), "latest", Asked("good"))
    assert not told(mine.id)
    assert [type_ for type_, _ in told(theirs.id)] == ["alias.moved", "promotion.decided"]
