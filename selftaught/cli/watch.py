"""Following a job to its end, through whatever the gateway and the network do meanwhile.

:func:`follow` tells what happens, and when it has lost the gateway; it knows nothing of terminals.
`picture.py` draws it, `jobs.py` writes it line by line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selftaught.cli.gateway import Json, NoGateway, at

if TYPE_CHECKING:
    from selftaught.client import Client

PAUSE = 0.5
"""Seconds before the gateway is asked again for the first time; then twice as many, and so on."""
LONGEST_PAUSE = 15.0
PATIENCE = 30.0
"""Seconds that an answer may take; one that takes longer is asked for again."""
SILENCE = 45.0
"""Seconds without a sign of life, after which a connection is given up; the gateway sends a comment
every 15."""
AWAY = (429, 502, 503, 504)
"""Answers that say to try later."""


@dataclass(frozen=True)
class Snapshot:
    """The job and its iterations as the gateway has them now."""

    job: Json
    iterations: list[Json]


@dataclass(frozen=True)
class Event:
    """Something that happened to the job; `body` as in GET /v1/jobs/{id}/events."""

    body: Json


@dataclass(frozen=True)
class Lost:
    """The gateway is away; it is asked again after `pause` seconds."""

    why: str
    tries: int
    pause: float


Item = Snapshot | Event | Lost


def follow(connect: Callable[[], Client], job_id: str) -> Iterator[Item]:
    """All that happens to a job, from its first event on; ends with a Snapshot of how it ended.

    `connect` finds the gateway anew each time: a stack that comes back may have another port. No
    event is told twice. A gateway that was never there, and one that refuses, raise what the client
    raises; one that goes away is waited for.
    """
    from httpx import TransportError

    from selftaught.client import ENDED, ApiError

    last, tries, met = 0, 0, False
    while True:
        try:
            with connect() as client:
                before = look(client, job_id)
                met, tries, first = True, 0, last
                yield before
                for event in stream(client, job_id, last):
                    last = event["seq"]
                    yield Event(event)
                    if event["type"].startswith("job.") or event["type"] == "iteration.succeeded":
                        yield look(client, job_id)
            if before.job["state"] in ENDED and last == first:
                return
        except (TransportError, NoGateway, ApiError) as error:
            refused = isinstance(error, ApiError) and error.status not in AWAY
            if refused or not met:
                raise
            tries += 1
            pause = min(LONGEST_PAUSE, PAUSE * 2 ** (tries - 1))
            yield Lost(_why(error), tries, pause)
            time.sleep(pause)


def _why(error: Exception) -> str:
    """In a few words."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return "no answer"
    if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError):
        return "the connection broke off"
    return str(error) or type(error).__name__


def look(client: Client, job_id: str) -> Snapshot:
    """The job now."""
    job = client.call("GET", at("jobs", job_id))
    return Snapshot(job, client.call("GET", at("jobs", job_id, "iterations"))["data"])


def stream(client: Client, job_id: str, after: int) -> Iterator[Json]:
    """Events numbered above `after`, as they happen, until the job or the connection ends."""
    from selftaught.sse import MEDIA_TYPE

    headers = {"Accept": MEDIA_TYPE, "Last-Event-ID": str(after)}
    path = at("jobs", job_id, "events")
    for _, event in client.listen("GET", path, headers=headers, timeout=SILENCE):
        yield event
