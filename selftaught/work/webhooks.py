"""Sends what webhooks are to be told: `python -m selftaught.work.webhooks`.

Deliveries are leased row by row, so any number of these processes may run. A lease is a token and
lasts until `next_at`; the request goes out outside any transaction, and its outcome counts only if
the token is still there. A process that dies in between leaves a lease that runs out: the event is
sent again, under the same webhook-id. So everything arrives at least once.

A webhook has at most PER_WEBHOOK requests under way and a project PER_PROJECT, in all processes
together; so one that is slow, or a project with many of them, holds up nobody else.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import random
import secrets
import signal
import ssl
from dataclasses import dataclass, field

from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

import selftaught
from selftaught import logs, outgoing, webhooks
from selftaught.database import transaction
from selftaught.database.tables import Webhook, WebhookDelivery
from selftaught.outgoing import Answer, Lookup, NoAnswer, UrlRefused
from selftaught.settings import get_settings

log = logging.getLogger("selftaught.work.webhooks")  # not __main__, which it is run as

SCHEDULE = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""Seconds after each failed attempt until the next: the specification's."""
ATTEMPTS = len(SCHEDULE) + 1
JITTER = 0.1
LONGEST_WAIT = 24 * 3600
TIMEOUT = 15.0
LEASE = 60.0
"""Seconds; more than a request and what is written of it take."""
PER_WEBHOOK, PER_PROJECT, PER_PROCESS = 4, 16, 256
POLL = 0.5
DISABLE_DAYS = 5
"""A webhook that has accepted nothing for so long is disabled at its next failure."""
KEPT_DAYS = 30
"""So long a delivery that has ended, or waits for a disabled webhook, is kept."""

CLAIM = text(
    """
    WITH busy AS (
        SELECT webhook_id, project_id, count(*) AS n FROM webhook_deliveries
        WHERE lock_token IS NOT NULL AND next_at > clock_timestamp() GROUP BY 1, 2
    ), found AS (
        SELECT due.id, due.next_at, w.project_id,
               row_number() OVER (PARTITION BY w.project_id ORDER BY due.next_at, due.id) AS place
        FROM webhooks w LEFT JOIN busy ON busy.webhook_id = w.id
        CROSS JOIN LATERAL (
            SELECT id, next_at FROM webhook_deliveries d
            WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.next_at <= clock_timestamp()
            ORDER BY next_at, id LIMIT greatest(0, :per_webhook - coalesce(busy.n, 0))
        ) AS due
        WHERE w.state = 'enabled'
    ), chosen AS (
        SELECT found.id FROM found
        LEFT JOIN (SELECT project_id, sum(n) AS n FROM busy GROUP BY 1) AS p USING (project_id)
        WHERE place + coalesce(p.n, 0) <= :per_project ORDER BY place, next_at LIMIT :room
    ), locked AS (
        SELECT id FROM webhook_deliveries WHERE id IN (SELECT id FROM chosen)
            AND state = 'pending' AND next_at <= clock_timestamp()
        FOR UPDATE SKIP LOCKED
    )
    UPDATE webhook_deliveries AS d
    SET lock_token = :token, attempts = attempts + 1,
        next_at = clock_timestamp() + make_interval(secs => :lease)
    FROM locked, webhooks AS w WHERE d.id = locked.id AND w.id = d.webhook_id
    RETURNING d.id, d.webhook_id, d.payload, d.attempts, w.url,
        CASE WHEN w.old_secret_until > clock_timestamp() THEN ARRAY[w.secret, w.old_secret]
             ELSE ARRAY[w.secret] END AS secrets
    """
)
LOST = text(
    """
    UPDATE webhook_deliveries SET state = 'failed', lock_token = NULL, status = NULL,
        error = 'every attempt was lost', finished_at = clock_timestamp()
    WHERE state = 'pending' AND attempts >= :attempts AND lock_token IS NOT NULL
        AND next_at <= clock_timestamp()
    """
)
PRUNE = text(
    """
    DELETE FROM webhook_deliveries WHERE id IN (
        (SELECT id FROM webhook_deliveries
         WHERE finished_at < clock_timestamp() - make_interval(days => :days) LIMIT 1000)
        UNION ALL
        (SELECT id FROM webhook_deliveries WHERE state = 'pending'
            AND next_at < clock_timestamp() - make_interval(days => :days) LIMIT 1000)
    )
    """
)


@dataclass(frozen=True)
class Leased:
    """A delivery that this process is to send now."""

    id: str
    webhook_id: str
    token: str
    url: str
    payload: str
    attempts: int  # this one counted
    secrets: tuple[str, ...] = field(repr=False)  # the newest first


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: a status, or why there is none."""

    answer: Answer | None = None
    error: str | None = None

    @property
    def accepted(self) -> bool:
        return self.answer is not None and 200 <= self.answer.status < 300

    @property
    def gone(self) -> bool:
        return self.answer is not None and self.answer.status == 410


def claim(room: int) -> list[Leased]:
    """Lease at most `room` deliveries that are due; none while another process is at it."""
    token = secrets.token_hex(16)
    with transaction() as session:
        # One at a time: what is under way is counted first.
        if not session.scalar(
            select(func.pg_try_advisory_xact_lock(func.hashtext("webhooks.claim")))
        ):
            return []
        session.execute(LOST, {"attempts": ATTEMPTS})
        limits = {"per_webhook": PER_WEBHOOK, "per_project": PER_PROJECT, "room": room}
        rows = session.execute(CLAIM, {**limits, "token": token, "lease": LEASE}).all()
    return [
        Leased(
            row.id, row.webhook_id, token, row.url, row.payload, row.attempts, tuple(row.secrets)
        )
        for row in rows
    ]


async def send(
    leased: Leased, lookup: Lookup | None = None, tls: ssl.SSLContext | None = None
) -> Outcome:
    """One attempt. See outgoing.post for `lookup` and `tls`."""
    timestamp = int(dt.datetime.now(dt.UTC).timestamp())
    headers = {
        "content-type": "application/json",
        "user-agent": f"selftaught/{selftaught.__version__}",
        "webhook-id": leased.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": webhooks.signature(
            leased.secrets, leased.id, timestamp, leased.payload
        ),
    }
    inside = get_settings().webhook_networks
    try:
        target = outgoing.check(leased.url, inside)
        body = leased.payload.encode()
        return Outcome(
            await outgoing.post(target, body, headers, inside, TIMEOUT, lookup=lookup, tls=tls)
        )
    except (UrlRefused, NoAnswer) as error:
        return Outcome(error=str(error))


def settle(leased: Leased, outcome: Outcome) -> bool:
    """Write down what came of an attempt; False if the lease was lost, and nothing was written.

    The webhook is locked first, then the delivery, as by who deletes a webhook.
    """
    with transaction() as session:
        webhook = session.scalars(
            select(Webhook).where(Webhook.id == leased.webhook_id).with_for_update(key_share=True)
        ).one_or_none()
        if webhook is None:
            return False
        now = session.scalars(select(func.clock_timestamp())).one()
        written = session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == leased.id, WebhookDelivery.lock_token == leased.token)
            .values(lock_token=None, **_result(leased, outcome, now))
        )
        if written.rowcount == 0:  # type: ignore[attr-defined]
            return False
        _note(session, webhook, outcome, now)
    return True


def _result(leased: Leased, outcome: Outcome, now: dt.datetime) -> dict[str, object]:
    """What an attempt makes of its delivery."""
    answer = outcome.answer
    told: dict[str, object] = {
        "status": answer.status if answer else None,
        "response": answer.excerpt if answer else None,
        "error": outcome.error,
    }
    if outcome.accepted:
        return {**told, "state": "delivered", "finished_at": now}
    if outcome.gone or leased.attempts >= ATTEMPTS:
        return {**told, "state": "failed", "finished_at": now}
    wait = backoff(leased.attempts, answer.retry_after if answer else None)
    return {**told, "next_at": now + dt.timedelta(seconds=wait)}


def _note(session: Session, webhook: Webhook, outcome: Outcome, now: dt.datetime) -> None:
    """What an attempt says of its webhook."""
    if outcome.accepted:
        webhook.failing_since = None
        return
    webhook.failing_since = webhook.failing_since or now
    failing = now - webhook.failing_since
    if outcome.gone:
        disable(session, webhook, "gone")
    elif failing >= dt.timedelta(days=DISABLE_DAYS):
        disable(session, webhook, "failing")


def disable(session: Session, webhook: Webhook, reason: str) -> None:
    """Send it nothing more, and tell the project's others; what waits for it goes on waiting."""
    if webhook.state == "enabled":
        webhook.state, webhook.disabled_reason = "disabled", reason
        session.flush()
        told = {"webhook": webhook.id, "reason": reason}
        webhooks.tell(session, webhook.project_id, "webhook.disabled", told)
        log.warning("webhook %s of %s is disabled: %s", webhook.id, webhook.project_id, reason)


def backoff(attempts: int, retry_after: str | None = None) -> float:
    """Seconds until the next attempt after so many; not less than a Retry-After in seconds.

    A little more or less at random, so that what failed together does not come again together.
    """
    wait = SCHEDULE[attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    digits = retry_after is not None and retry_after.isascii() and retry_after.isdigit()
    asked = int(retry_after[:9]) if retry_after and digits else 0
    return min(max(wait, asked), LONGEST_WAIT * (1 + JITTER))


def prune() -> int:
    """Remove deliveries that ended long ago; returns how many."""
    with transaction() as session:
        return session.execute(PRUNE, {"days": KEPT_DAYS}).rowcount  # type: ignore[attr-defined,no-any-return]


async def deliver(leased: Leased) -> None:
    """Send and settle. What cannot be written down is sent again when the lease has run out."""
    outcome = await send(leased)
    said = outcome.answer.status if outcome.answer else outcome.error
    try:
        counted = await asyncio.to_thread(settle, leased, outcome)
    except DBAPIError as error:
        log.warning("delivery %s: %s, which could not be written down: %s", leased.id, said, error)
        return
    lost = "" if counted else " (lease lost)"
    log.info("delivery %s, attempt %d: %s%s", leased.id, leased.attempts, said, lost)


async def run(stop: asyncio.Event) -> None:
    """Deliver until told to stop; then what is under way comes to its end."""
    under_way: set[asyncio.Task[None]] = set()
    pruned = -3600.0
    loop = asyncio.get_running_loop()
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        try:
            if loop.time() - pruned > 3600 and not await asyncio.to_thread(prune):
                pruned = loop.time()
            leases = await asyncio.to_thread(claim, PER_PROCESS - len(under_way))
        except DBAPIError as error:
            log.warning("Postgres is away: %s", error)
            leases = []
        under_way |= {asyncio.create_task(_deliver_logged(one)) for one in leases}
        waiting = {stopping, *under_way}
        await asyncio.wait(waiting, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.02)  # so that many that end at once make one more claim, not many
        under_way = {one for one in under_way if not one.done()}
    stopping.cancel()
    if under_way:
        log.info("%d deliveries are under way", len(under_way))
        await asyncio.wait(under_way)


async def _deliver_logged(leased: Leased) -> None:
    try:
        await deliver(leased)
    except Exception:  # one delivery; its lease runs out, and it counts as an attempt
        log.exception("delivery %s failed", leased.id)


async def _main() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("webhooks ready")
    await run(stop)
    log.info("webhooks stopped")


def main() -> None:
    """Until SIGTERM or SIGINT."""
    logs.setup()
    os.environ.setdefault("RES_OPTIONS", "timeout:3 attempts:2")  # a slow name server is no reason
    asyncio.run(_main())


if __name__ == "__main__":
    main()
