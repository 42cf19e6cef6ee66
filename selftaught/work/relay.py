"""The relay: sends outbox rows to Redis, announces forgotten chunks again, reaps dead leases.

Rows are taken out of the outbox in one short transaction and sent after it, in their order, so no
transaction waits for the network. What a crash in between loses, a re-ring repairs: at a relay's
start all announced chunks that are ready are announced again, and later, when a queue is empty,
those whose last message is older than SELFTAUGHT_RERING_SECONDS. Doubles do no harm. Any number of
relays may run.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import InternalError, OperationalError

from selftaught import logs, telemetry
from selftaught.database import transaction
from selftaught.settings import get_settings
from selftaught.work.kernel import reap
from selftaught.work.planning import QUEUES
from selftaught.work.worker import celery_app, task_name

log = logging.getLogger("selftaught.work.relay")  # not __main__, which it is run as

TAKE = text(
    """
    WITH taken AS (
        DELETE FROM outbox WHERE id IN (
            SELECT id FROM outbox WHERE created_at <= clock_timestamp()
            ORDER BY id LIMIT 200 FOR UPDATE SKIP LOCKED
        ) RETURNING id, chunk_id, queue
    ), rung AS (
        UPDATE chunks SET rung_at = clock_timestamp() FROM (
            SELECT id FROM chunks WHERE id IN (SELECT chunk_id FROM taken) ORDER BY id FOR UPDATE
        ) AS locked WHERE chunks.id = locked.id
    )
    SELECT chunk_id, once.queue, jobs.traceparent
    FROM (SELECT chunk_id, queue, min(id) AS turn FROM taken GROUP BY chunk_id, queue) AS once
    JOIN chunks ON chunks.id = chunk_id JOIN jobs ON jobs.id = chunks.job_id
    ORDER BY turn
    """
)
# A chunk that is being changed at this moment is passed over: who changes many locks them in the
# order of their ids, and these are locked (by the outbox's foreign key) in the order of their turn.
RERING = text(
    """
    INSERT INTO outbox (chunk_id, queue)
    SELECT id, queue FROM chunks
    WHERE state = 'ready' AND queue = ANY(:queues)
      AND EXISTS (SELECT FROM jobs WHERE jobs.id = chunks.job_id AND jobs.state = 'running')
      AND rung_at < clock_timestamp() - make_interval(secs => :age)
      AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.chunk_id = chunks.id)
    ORDER BY created_at, position FOR KEY SHARE SKIP LOCKED
    """
)
FIRST_RING = text(
    """
    INSERT INTO outbox (chunk_id, queue)
    SELECT id, queue FROM chunks
    WHERE state = 'ready' AND queue = ANY(:queues) AND rung_at IS NULL
      AND EXISTS (SELECT FROM jobs WHERE jobs.id = chunks.job_id AND jobs.state = 'running')
      AND created_at < clock_timestamp() - make_interval(secs => :age)
      AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.chunk_id = chunks.id)
    ORDER BY created_at, position LIMIT 32 FOR KEY SHARE SKIP LOCKED
    """
)
PUT_BACK = text(  # unless its job was deleted
    "INSERT INTO outbox (chunk_id, queue)"
    " SELECT id, :queue FROM chunks WHERE id = :chunk_id FOR KEY SHARE"
)


def send_pending(apps: dict[str, Celery]) -> int:
    """Send what the outbox holds; returns how many messages went out."""
    with transaction() as session:
        rows = session.execute(TAKE).all()
    sent = 0
    try:
        for chunk_id, queue, traceparent in rows:
            app = apps.setdefault(queue, celery_app(queue))
            # One whose job nobody traces has no header, and no span.
            told = {"selftaught.chunk_id": chunk_id}
            with telemetry.span(f"send {queue}", "producer", traceparent, told):
                sending = telemetry.headers() if traceparent else {}
                app.send_task(task_name(queue), args=[chunk_id], queue=queue, headers=sending)
            sent += 1
    except (BrokerError, RedisError, OSError) as error:
        log.warning("Redis is away (%s); %d messages kept", error, len(rows) - sent)
        with transaction() as session:
            for chunk_id, queue, _ in rows[sent:]:
                session.execute(PUT_BACK, {"chunk_id": chunk_id, "queue": queue})
        time.sleep(1.0)  # do not spin while Redis is away
    return sent


def rering_all() -> None:
    """Queue all announced chunks that are ready: a relay may have died before it sent them."""
    with transaction() as session:
        session.execute(RERING, {"age": 0, "queues": sorted(set(QUEUES.values()))})


def rering(redis: Redis) -> None:
    """Queue ready chunks whose message seems lost, and some that nobody has announced yet.

    Only where Redis holds no message of that queue: else they merely wait, behind long trainings
    or while no worker runs, and every announcement would be one more to wait for.
    """
    queues = sorted(set(QUEUES.values()))
    empty = [queue for queue in queues if not redis.llen(queue)]
    with transaction() as session:
        for statement in (RERING, FIRST_RING):
            session.execute(statement, {"age": get_settings().rering_seconds, "queues": empty})


def main() -> None:
    """Loop until SIGTERM or SIGINT."""
    logs.setup()
    telemetry.setup()
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    settings = get_settings()
    apps: dict[str, Celery] = {}
    redis = Redis.from_url(settings.redis_url, socket_timeout=5)
    checked, started = 0.0, False
    log.info("relay ready")
    while not stop.wait(settings.relay_seconds):
        try:
            if not started:
                rering_all()
                started = True
            send_pending(apps)
            if time.monotonic() - checked >= min(1.0, settings.rering_seconds):
                checked = time.monotonic()
                reap()
                rering(redis)
        except (OperationalError, InternalError) as error:
            log.warning("Postgres is away: %s", error)
            stop.wait(1.0)
        except RedisError as error:
            log.warning("Redis is away: %s", error)
            stop.wait(1.0)


if __name__ == "__main__":
    main()
