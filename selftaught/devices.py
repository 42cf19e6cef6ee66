"""Who holds which GPU: leases in the database, one row a device.

A node's engine process registers its devices and leases some to each server that it runs. A
training on the same node asks for devices too; where all are taken by servers it marks them as
wanted, the engine process drains and stops its servers, and starts them again when the training has
ended. A node without an engine process has no rows, and a training there takes what it finds.
All times are Postgres's clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from selftaught.database import transaction
from selftaught.database.tables import Device

log = logging.getLogger(__name__)

CPU = "cpu"
"""Names of devices that are no GPU begin so: cpu, cpu:0, ..."""

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
WANTED_SECONDS = 10.0
"""How long a wish of a training counts; it is renewed while the training waits."""


class TooFewDevices(Exception):
    """The node will never have as many devices as are asked for."""


def register(node: str, names: Sequence[str]) -> None:
    """The devices of a node whose engine process has just begun: it holds none of them yet."""
    with transaction() as session:
        session.execute(
            text("DELETE FROM devices WHERE node = :node AND NOT (name = ANY(:names))"),
            {"node": node, "names": list(names)},
        )
        for position, name in enumerate(names):
            session.execute(
                text(
                    "INSERT INTO devices (node, name, position, seen_at) "
                    "VALUES (:node, :name, :position, clock_timestamp()) "
                    "ON CONFLICT (node, name) DO UPDATE SET position = :position, "
                    "seen_at = clock_timestamp()"
                ),
                {"node": node, "name": name, "position": position},
            )
        session.execute(
            text(
                "UPDATE devices SET holder = NULL, purpose = NULL, expires_at = NULL "
                "WHERE node = :node AND purpose = 'engine'"
            ),
            {"node": node},
        )


def seen(node: str) -> None:
    """The node's engine process lives."""
    with transaction() as session:
        session.execute(
            update(Device).where(Device.node == node).values(seen_at=func.clock_timestamp())
        )


def acquire(node: str, count: int, holder: str, purpose: str) -> list[str] | None:
    """`count` free devices of a node, by name, or None if it has not so many free now.

    A device is free if nobody holds it, or its holder has not renewed its lease; an engine leaves
    alone what a training waits for. Raises TooFewDevices.
    """
    with transaction() as session:
        rows = session.scalars(
            select(Device).where(Device.node == node).order_by(Device.position).with_for_update()
        ).all()
        now = session.execute(select(func.clock_timestamp())).scalar_one()
        if len(rows) < count:
            raise TooFewDevices(f"{count} devices are asked for; node {node} has {len(rows)}")
        free = [
            row
            for row in rows
            if (row.holder is None or (row.expires_at is not None and row.expires_at < now))
            and (purpose != "engine" or row.wanted_until is None or row.wanted_until < now)
        ]
        if len(free) < count:
            return None
        for row in free[:count]:
            row.holder, row.purpose, row.wanted_until = holder, purpose, None
        session.flush()
        _extend(session, holder)
        return [row.name for row in free[:count]]


def renew(holder: str) -> bool:
    """Extend a holder's leases; False if it has none any more."""
    with transaction() as session:
        return _extend(session, holder) > 0


def _extend(session: Session, holder: str) -> int:
    result = session.execute(
        text(
            "UPDATE devices SET expires_at = clock_timestamp() + make_interval(secs => :s) "
            "WHERE holder = :holder"
        ),
        {"s": LEASE_SECONDS, "holder": holder},
    )
    return int(cast(CursorResult[Any], result).rowcount)


def release(holder: str) -> None:
    """Give a holder's devices back."""
    with transaction() as session:
        session.execute(
            update(Device)
            .where(Device.holder == holder)
            .values(holder=None, purpose=None, expires_at=None)
        )


def want(node: str) -> None:
    """A training waits for devices of this node that engines hold."""
    with transaction() as session:
        session.execute(
            text(
                "UPDATE devices SET wanted_until = "
                "clock_timestamp() + make_interval(secs => :s) WHERE node = :node"
            ),
            {"s": WANTED_SECONDS, "node": node},
        )


def wanted(node: str) -> set[str]:
    """Names of the node's devices that a training waits for."""
    with transaction() as session:
        return set(
            session.scalars(
                select(Device.name).where(
                    Device.node == node, Device.wanted_until > func.clock_timestamp()
                )
            )
        )


def most() -> int:
    """Devices of the node that has most of them."""
    with transaction() as session:
        counts = session.scalars(select(func.count()).select_from(Device).group_by(Device.node))
        return max(counts, default=0)


@contextmanager
def held(
    node: str, count: int, holder: str, check: Callable[[], None], poll: float = 0.5
) -> Iterator[list[str]]:
    """Devices for a training, by name, while the block runs; [] on a node that has none in leasing.

    Waits for them, and calls `check` while it does, which may raise. Raises TooFewDevices. A CPU is
    as many devices as are asked for.
    """
    with transaction() as session:
        registered = session.scalars(select(Device.name).where(Device.node == node)).all()
    if not registered:
        yield []
        return
    if all(name.startswith(CPU) for name in registered):
        count = min(count, len(registered))
    while (names := acquire(node, count, holder, "training")) is None:
        check()
        want(node)
        time.sleep(poll)
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(holder, stop), name="devices", daemon=True)
    thread.start()
    try:
        yield names
    finally:
        stop.set()
        thread.join()
        release(holder)


def _keep(holder: str, stop: threading.Event) -> None:
    while not stop.wait(RENEW_SECONDS):
        try:
            if not renew(holder):
                log.warning("the devices of %s were taken away", holder)
        except DBAPIError as error:  # Postgres restarts: a lease outlives a short one
            log.warning("the lease of devices of %s was not renewed: %s", holder, error)
