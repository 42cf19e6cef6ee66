"""Limits of projects: requests in a minute, and quotas of what work uses.

Quotas are looked at where work is let in. Work that was let in goes on when its project's quota is
used up; so a quota is exceeded by what was under way, never by what comes after.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from selftaught import tenancy, usage
from selftaught.contracts import Limits
from selftaught.database import transaction
from selftaught.http import Refused
from services.api.rates import WINDOW, Counted, Rates

KNOWN_SECONDS = 2.0
"""So long a gateway takes a project to stand where it stood: to limits, and to what it has used."""
_KNOWN = 1024


class Standings:
    """Where projects stood in the last KNOWN_SECONDS, so that not every call asks Postgres."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, usage.Standing]] = OrderedDict()

    async def of(self, project: str) -> usage.Standing:
        """A project's limits, and what it has used today."""
        known = self._known.get(project)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        found = await run_in_threadpool(_look_up, project)
        self._known[project] = (time.monotonic() + KNOWN_SECONDS, found)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return found

    def forget(self, project: str) -> None:
        """Its limits have changed."""
        self._known.pop(project, None)


def _look_up(project: str) -> usage.Standing:
    with transaction() as session:
        return usage.standing(session, project)


async def enter(request: Request, project: str) -> None:
    """Count a request against its project's rate, which the answer's headers tell. Raises Refused.

    Redis is not asked about projects that have no limit of requests.
    """
    standings: Standings = request.app.state.standings
    found = request.state.standing = await standings.of(project)
    limit = found.limits.requests_per_minute
    if limit is None:
        return
    counted = await cast(Rates, request.app.state.rates).count(project)
    request.state.headers = _headers(limit, counted)
    if counted.requests > limit:
        detail = f"project {project!r} may send {limit} requests a minute"
        raise too_many("rate_limited", detail, counted.seconds)


def too_many(code: str, detail: str, seconds: float) -> Refused:
    """429, to be tried again in so many seconds."""
    return Refused(429, code, detail, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


async def _call(request: Request) -> None:
    standing: usage.Standing = request.state.standing
    limits = standing.limits
    for what, used, limit in (
        ("tokens_per_day", standing.tokens, limits.tokens_per_day),
        ("gpu_seconds_per_day", standing.gpu_seconds, limits.gpu_seconds_per_day),
    ):
        if limit is not None and used >= limit:
            left = (standing.tomorrow - standing.now).total_seconds()
            raise too_many("quota_exceeded", f"{what}: {used:.0f} of {limit} are used", left)


async def _work(request: Request) -> None:
    await _call(request)
    limits: Limits = request.state.standing.limits
    if limits.stored_bytes is None:
        return
    used = await run_in_threadpool(_stored, request.state.caller.project)
    if used >= limits.stored_bytes:
        raise no_room(f"{used} of {limits.stored_bytes} bytes are stored")
    request.state.room = limits.stored_bytes - used


Call = Depends(_call)
"""Of routes that ask models at once: quotas of what is used in a day."""
Work = Depends(_work)
"""Of routes that begin work, or store something: all quotas."""


def need_room(request: Request, size: int) -> None:
    """Raises Refused (429) if a body of which `size` bytes have come is more than may be stored."""
    room: int | None = getattr(request.state, "room", None)
    if room is not None and size > room:
        raise no_room(f"{room} bytes more may be stored, this is larger", {"Connection": "close"})


def take_room(session: Session, size: int) -> None:
    """Raises Refused (429) unless this project may store `size` bytes more; see usage.take_room."""
    project = tenancy.current()
    assert project is not None  # routes that store something are never the operator's
    try:
        usage.take_room(session, project, size)
    except usage.NoRoom as error:
        raise no_room(str(error)) from error


def no_room(detail: str, headers: dict[str, str] | None = None) -> Refused:
    """429 without Retry-After: waiting frees nothing."""
    return Refused(429, "quota_exceeded", f"stored_bytes: {detail}", headers=headers)


def _stored(project: str) -> int:
    with transaction() as session:
        return usage.stored(session, project)


def _headers(limit: int, counted: Counted) -> dict[str, str]:
    """draft-ietf-httpapi-ratelimit-headers: the policy, and what is left of it."""
    left = max(0, limit - counted.requests)
    return {
        "RateLimit-Policy": f'"requests";q={limit};w={WINDOW}',
        "RateLimit": f'"requests";r={left};t={math.ceil(counted.seconds)}',
    }
