"""Work that may be called off in the middle: engines and writers look, between steps, at this.

A worker does a chunk's work within :func:`under`; when its lease is lost, or its job is cancelled
or paused, the next :func:`check` of whatever it is doing raises Stopped. Elsewhere nothing is ever
called off. Knows nothing of leases or models, so that both may know it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

POLL_SECONDS = 0.1


class Stopped(Exception):
    """The work that is being done was called off."""


@dataclass(frozen=True)
class _Order:
    off: threading.Event
    token: str


_order: ContextVar[_Order | None] = ContextVar("order", default=None)


@contextmanager
def under(off: threading.Event, token: str) -> Iterator[None]:
    """Work inside the block is called off when `off` is set. `token`: of the lease it is done
    under."""
    before = _order.set(_Order(off, token))
    try:
        yield
    finally:
        _order.reset(before)


def check() -> None:
    """Between two steps: raises Stopped if the work was called off."""
    order = _order.get()
    if order is not None and order.off.is_set():
        raise Stopped


def token() -> str:
    """Of the lease that this work is done under; empty if it is under none."""
    order = _order.get()
    return "" if order is None else order.token


async def called_off() -> None:
    """Raises Stopped when the work is called off; to be cancelled when it is done."""
    while True:
        check()
        await asyncio.sleep(POLL_SECONDS)
