"""Deliveries: signed by the specification, leased once, tried again by schedule, nothing lost."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import standardwebhooks
from sqlalchemy import text

from selftaught import webhooks
from selftaught.database import transaction
from selftaught.database.tables import Webhook
from selftaught.outgoing import Answer
from selftaught.settings import get_settings
from selftaught.work import webhooks as deliverer
from selftaught.work.webhooks import ATTEMPTS, SCHEDULE, Leased, Outcome, backoff, claim, settle
from tests.conftest import Servers
from tests.webhooks.helpers import (
    add,
    add_project,
    change,
    deliver_all,
    deliveries,
    make_due,
    tell,
    webhook,
)
from tests.webhooks.receiver import Got, Receiver, receiving, wait_until


@pytest.fixture(autouse=True)
def loopback(database: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_WEBHOOK_NETWORKS", '["127.0.0.0/8"]')
    get_settings.cache_clear()


def answered(status: int, retry_after: str | None = None) -> Outcome:
    return Outcome(Answer(status, "said", retry_after))


def verify(secret: str, got: Got) -> dict[str, object]:
    """The payload, if another implementation finds the signature good."""
    _, headers, body = got
    found: dict[str, object] = standardwebhooks.Webhook(secret).verify(body, headers)
    return found


@contextmanager
def started() -> Iterator[subprocess.Popen[str]]:
    """The deliverer as a process of its own."""
    command = [sys.executable, "-m", "selftaught.work.webhooks"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def only() -> Leased:
    (leased,) = claim(10)
    return leased


def test_a_signature_is_what_the_specification_says() -> None:
    """The vector of the reference implementations."""
    key, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", '{"test": 2432232314}'
    made = webhooks.signature([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_arrives_is_the_payload_signed_and_dated() -> None:
    with receiving(Receiver()) as receiver:
        hook = add(receiver.url)
        tell("job.failed", text="Größe · 評価")
        (before,) = deliveries()
        deliver_all()
        (got,) = receiver.got
        assert verify(hook.secret, got)["data"] == {"text": "Größe · 評価"}
        path, headers, body = got
        assert (path, body.decode()) == ("/hook", before.payload)
        assert headers["webhook-id"] == before.id and "." not in before.id
        assert headers["content-type"] == "application/json"
        for broken in (
            (path, headers, body.replace(b"job", b"bob")),
            (path, {**headers, "webhook-id": "msg_0"}, body),
            (
                path,
                {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)},
                body,
            ),
        ):
            with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
                verify(hook.secret, broken)
    (done,) = deliveries()
    assert (done.state, done.status, done.attempts, done.payload) == (
        "delivered",
        204,
        1,
        before.payload,
    )
    assert claim(10) == []


def test_after_a_rotation_both_secrets_sign_for_a_day() -> None:
    with receiving(Receiver()) as receiver:
        hook = add(receiver.url)
        with transaction() as session:
            webhooks.rotate(session, session.get_one(Webhook, hook.id))
        new = webhook(hook.id).secret
        assert new != hook.secret
        tell()
        deliver_all()
        for secret in (hook.secret, new):
            verify(secret, receiver.got[0])
        change(hook.id, old_secret_until=dt.datetime.now(dt.UTC))
        tell()
        deliver_all()
        verify(new, receiver.got[1])
        with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
            verify(hook.secret, receiver.got[1])


def test_a_failure_is_tried_again_with_the_same_id_and_body_by_the_schedule() -> None:
    with receiving(Receiver("HTTP/1.1 500 No\r\n\r\nbroken")) as receiver:
        hook = add(receiver.url)
        tell()
        for attempt in range(1, ATTEMPTS + 1):
            deliver_all()
            (row,) = deliveries()
            assert (row.attempts, row.status, row.response) == (attempt, 500, "broken")
            if attempt < ATTEMPTS:
                with transaction() as session:
                    now = session.scalars(text("SELECT clock_timestamp()")).one()
                wait = (row.next_at - now).total_seconds()
                # the schedule, its jitter, and what this test itself took since
                assert 0.9 * SCHEDULE[attempt - 1] - 5 <= wait <= 1.1 * SCHEDULE[attempt - 1]
                assert row.state == "pending"
                if attempt > 1:  # 5 s may pass while a busy machine gets here
                    assert claim(10) == []
            make_due()
        assert row.state == "failed" and row.finished_at is not None
        assert claim(10) == []
        sent = {(headers["webhook-id"], body) for _, headers, body in receiver.got}
        assert len(receiver.got) == ATTEMPTS and sent == {(row.id, row.payload.encode())}
    assert webhook(hook.id).failing_since is not None


def test_the_schedule_is_the_specifications() -> None:
    assert [sum(SCHEDULE[:n]) for n in range(ATTEMPTS)] == [
        0, 5, 305, 2105, 9305, 27305, 63305, 113705, 185705, 272105,
    ]  # fmt: skip
    waits = {backoff(2) for _ in range(50)}
    assert len(waits) > 1 and all(270 <= wait <= 330 for wait in waits)


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        ("120", 120, 120),
        ("1", 4, 6),
        ("999999999999", 86400, 96000),
        ("9" * 5000, 86400, 96000),
        ("soon", 4, 6),
        ("-5", 4, 6),
        ("²", 4, 6),
        ("Fri, 27 Nov 2026 09:00:00 GMT", 4, 6),
        (None, 4, 6),
    ],
)
def test_a_receiver_may_ask_for_more_patience(given: str | None, least: int, most: int) -> None:
    assert least <= backoff(1, given) <= most


def test_redirects_are_failures_and_gone_ends_it() -> None:
    hook, other = add(), add("https://example.com/", "webhook.*")
    tell(times=2)
    first, second = claim(10)
    assert settle(first, answered(302)) and webhook(hook.id).state == "enabled"
    assert settle(second, answered(410))
    found = webhook(hook.id)
    assert (found.state, found.disabled_reason) == ("disabled", "gone")
    assert sorted(row.state for row in deliveries(hook.id)) == ["failed", "pending"]
    (disabled,) = claim(10)  # the project's others hear of it
    assert disabled.webhook_id == other.id and json.loads(disabled.payload)["data"] == {
        "webhook": hook.id,
        "reason": "gone",
    }
    settle(disabled, answered(200))
    make_due()
    assert claim(10) == []  # it waits until somebody enables the webhook
    tell()
    assert len(deliveries(hook.id)) == 2  # and nothing new is noted
    change(hook.id, state="enabled", disabled_reason=None)
    assert len(claim(10)) == 1


def test_days_of_failures_disable_and_one_success_forgives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = add()
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=deliverer.DISABLE_DAYS, minutes=1)
    change(hook.id, failing_since=long_ago)
    tell()
    settle(only(), answered(200))
    assert webhook(hook.id).failing_since is None
    tell()
    settle(only(), Outcome(error="no answer"))
    assert webhook(hook.id).state == "enabled"
    change(hook.id, failing_since=long_ago)
    make_due()
    settle(only(), answered(503))
    found = webhook(hook.id)
    assert (found.state, found.disabled_reason) == ("disabled", "failing")
    assert f"webhook {hook.id} of default is disabled: failing" in caplog.text


def test_a_dead_deliverers_lease_runs_out_and_its_late_word_counts_for_nothing() -> None:
    add()
    tell()
    dead = only()
    assert claim(10) == []
    make_due()
    alive = only()
    assert (alive.id, alive.attempts) == (dead.id, 2)
    assert not settle(dead, answered(410))
    assert settle(alive, answered(200))
    assert deliveries()[0].state == "delivered"


def test_a_delivery_that_kills_every_deliverer_is_given_up() -> None:
    add()
    tell()
    for _ in range(ATTEMPTS):
        only()
        make_due()
    assert claim(10) == []
    (row,) = deliveries()
    assert (row.state, row.error, row.lock_token) == ("failed", "every attempt was lost", None)


def test_one_holder_for_each_delivery_under_many_claimers() -> None:
    for number in range(6):
        add(f"https://example.com/{number}")
    tell(times=3)
    with ThreadPoolExecutor(8) as pool:
        found = [one for some in pool.map(lambda _: claim(2), range(80)) for one in some]
    assert max(Counter(one.id for one in found).values()) == 1
    assert len(found) <= deliverer.PER_PROJECT


def test_a_webhook_and_a_project_have_their_share_of_requests_and_no_more() -> None:
    add_project("other")
    hooks = [add(f"https://example.com/{number}") for number in range(5)]
    theirs = add(project="other")
    tell(times=10)
    tell(project="other")
    found = claim(100)
    counted = Counter(one.webhook_id for one in found)
    assert max(counted.values()) == deliverer.PER_WEBHOOK
    assert counted[theirs.id] == 1  # behind forty older ones of another project
    assert sum(counted[hook.id] for hook in hooks) == deliverer.PER_PROJECT
    assert claim(100) == []
    settle(next(one for one in found if one.webhook_id != theirs.id), answered(200))
    assert len(claim(100)) == 1
    assert claim(0) == []


def test_a_webhook_that_is_deleted_meanwhile_takes_its_deliveries_with_it() -> None:
    hook = add()
    tell()
    leased = only()
    with transaction() as session:
        session.delete(session.get_one(Webhook, hook.id))
    assert not settle(leased, answered(200))
    assert not deliveries()


def test_an_address_that_has_become_private_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(Receiver()) as receiver:
        add(receiver.url)
        tell()
        monkeypatch.setenv("SELFTAUGHT_WEBHOOK_NETWORKS", "[]")
        get_settings.cache_clear()
        deliver_all()
        assert not receiver.got
    (row,) = deliveries()
    assert row.state == "pending" and row.status is None and "only https" in (row.error or "")


def test_old_deliveries_are_forgotten() -> None:
    add()
    tell(times=3)
    settle(claim(1)[0], answered(200))
    with transaction() as session:
        session.execute(
            text("UPDATE webhook_deliveries SET finished_at = finished_at - interval '31 days'")
        )
    assert (deliverer.prune(), len(deliveries()), deliverer.prune()) == (1, 2, 0)


def test_postgres_away_at_the_wrong_moment_costs_an_attempt_not_the_event(
    database: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(Receiver()) as receiver:
        add(receiver.url)
        tell()
        leased = only()
        hold = "ALTER TABLE webhooks RENAME TO webhooks_away"
        with transaction() as session:
            session.execute(text(hold))
        try:
            asyncio.run(deliverer.deliver(leased))
        finally:
            with transaction() as session:
                session.execute(text("ALTER TABLE webhooks_away RENAME TO webhooks"))
        assert "could not be written down" in caplog.text
        make_due()
        deliver_all()
        first, second = (headers["webhook-id"] for _, headers, _ in receiver.got)
    assert first == second and deliveries()[0].state == "delivered"


def test_a_killed_process_loses_nothing() -> None:
    """It dies with requests under way; who comes next sends those again, under the same ids."""
    release = threading.Event()
    receiver = Receiver()
    receiver.first = lambda: release.wait(30)
    with receiving(receiver):
        add(receiver.url)
        tell(times=10)
        with started() as process:
            wait_until(lambda: len(receiver.got) == deliverer.PER_WEBHOOK, "requests are under way")
            process.kill()
            process.wait()
        release.set()
        assert claim(10) == []  # the dead one's leases count until they run out
        make_due()
        for _ in range(3):
            deliver_all()
        ids = Counter(headers["webhook-id"] for _, headers, _ in receiver.got)
    assert len(ids) == 10 and {row.state for row in deliveries()} == {"delivered"}
    assert sorted(ids.values()) == [1] * 6 + [2] * 4


def test_the_process_delivers_waits_for_nobody_and_drains_when_it_is_told_to_stop() -> None:
    """A receiver that does not answer holds up no other; SIGTERM lets it come to its end."""
    release = threading.Event()
    slow, quick = Receiver(), Receiver()
    slow.first = lambda: release.wait(30)
    with receiving(slow), receiving(quick):
        add(slow.url)
        hook = add(quick.url)
        tell(times=20)
        with started() as process:
            wait_until(lambda: len(quick.got) == 20, "all for the quick one arrived")
            assert len(slow.got) == deliverer.PER_WEBHOOK
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            release.set()
            assert process.wait(30) == 0
            assert process.stderr is not None
            log = process.stderr.read()
    assert "webhooks ready" in log and "webhooks stopped" in log
    assert len({json.dumps(verify(hook.secret, got)) for got in quick.got}) == 20
    counted = Counter(row.state for row in deliveries())
    assert counted == {"delivered": 20 + len(slow.got), "pending": 20 - len(slow.got)}
    assert all(row.lock_token is None for row in deliveries())
