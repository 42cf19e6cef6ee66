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
LOOK_EVERY = 10.0
"""Seconds after which the job is looked at again with the next event, whatever that is."""
ENDED = ("succeeded", "failed", "cancelled")
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

    from selftaught.client import ApiError

    last, tries, met = 0, 0, False
    while True:
        try:
            with connect() as client:
                seen = before = look(client, job_id)
                met, tries, first, at_once = True, 0, last, time.monotonic()
                yield before
                for event in stream(client, job_id, last):
                    last = event["seq"]
                    yield Event(event)
                    if is_news(event, seen) or time.monotonic() - at_once > LOOK_EVERY:
                        seen, at_once = look(client, job_id), time.monotonic()
                        yield seen
            if last == first:
                if before.job["state"] in ENDED:
                    return
                time.sleep(PAUSE)  # somebody on the way ends streams that say nothing
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


def is_news(event: Json, seen: Snapshot) -> bool:
    """Whether an event tells of a state, a stage or a result that the snapshot does not know."""
    kind, data = event["type"], event["data"]
    known = {one["number"]: one for one in seen.iterations}
    if kind == "stage.started":
        stages = known.get(data["iteration"], {}).get("stages", [])
        return all(stage["kind"] != data["stage"] for stage in stages)
    if kind == "iteration.succeeded":
        return known.get(data["iteration"], {}).get("state") != "succeeded"
    return kind.startswith("job.") and seen.job["state"] not in ENDED


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
