"""Jobs as handles: they are waited for and followed, whatever happens in between."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import httpx
import pytest

from selftaught import ApiError, AsyncClient, Client, JobFailed
from selftaught.client import Job, waiting
from selftaught.contracts import EventOut
from selftaught.database import transaction
from selftaught.database.tables import Job as Row
from selftaught.work import control
from selftaught.work.events import emit
from tests.api.helpers import served


def end(job: Job, ticks: int = 0) -> None:
    """What workers would do."""
    for number in range(ticks):
        with transaction() as session:
            emit(session, job.id, "tick", {"text": f"{number}\u2028\x85"})
    with transaction() as session:
        control.cancel_job(session, job.id)


def test_a_job_is_waited_for_and_its_events_told(client: Client, job: Job) -> None:
    told: list[EventOut] = []
    worker = threading.Thread(target=end, args=(job, 250))  # more than two pages
    worker.start()
    with pytest.raises(JobFailed) as caught:
        job.wait(timeout=60, on_event=told.append)
    worker.join()
    assert (caught.value.id, caught.value.state, job.state) == (job.id, "cancelled", "cancelled")
    assert str(caught.value) == f"{job.id} cancelled" and job.ended
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert Counter(event.type for event in told)["tick"] == 250
    assert told[-1].type == "job.cancelled"
    assert list(job.events(follow=False)) == list(job.events()) == told


def test_waiting_ends_in_time_and_with_success(client: Client, job: Job) -> None:
    with pytest.raises(TimeoutError, match=f"{job.id} has not ended after 0 s"):
        job.wait(timeout=0.0)
    assert client.jobs.get(job.id) == job
    with transaction() as session:
        session.get_one(Row, job.id).state = "succeeded"
    assert job.wait() is job and job.state == "succeeded"


def test_what_is_done_with_a_job_shows(client: Client, job: Job) -> None:
    assert job.pause().state == "paused" and job.state == "paused"
    assert job.resume().state == "running"
    assert job.cancel() is job and job.ended
    with pytest.raises(ApiError, match="409"):
        job.retry()
    assert [one.number for one in job.iterations()] == [0]
    assert list(job.data()) == []
    with pytest.raises(ApiError, match="not_finished"):
        job.manifest(0)
    job.delete()
    with pytest.raises(ApiError, match="job_not_found"):
        job.refresh()


class Cutting:
    """Between client and gateway: every stream is cut after its second piece, `down` times in a
    row there is no gateway after that."""

    def __init__(self, app: Any, down: int) -> None:
        self._app, self._down, self.cut, self.refused = app, down, 0, 0
        self._left = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._left > 0:
            self._left, self.refused = self._left - 1, self.refused + 1
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"down"})
            return
        pieces = 0

        async def cutting(message: Any) -> None:
            nonlocal pieces
            streams = dict(scope.get("headers", [])).get(b"accept") == b"text/event-stream"
            if streams and message["type"] == "http.response.body" and message.get("body"):
                pieces += 1
                if pieces > 2:
                    self.cut += 1
                    self._left = self._down
                    raise ConnectionResetError
            await send(message)

        await self._app(scope, receive, cutting)


def test_events_survive_cut_connections(
    app: Any, client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAUSE", 0.0)
    end(job, ticks=3)
    cutting = Cutting(app, down=1)
    with served(cutting) as found, Client(found, retries=0) as other:
        events = list(other.jobs.get(job.id).events())
        assert events == list(job.events(follow=False)) and len(events) >= 8
        assert cutting.cut >= 3 and cutting.refused >= 3
        later = list(other.jobs.get(job.id).events(after=events[3].seq))
        assert later == events[4:]


def test_a_gateway_that_stays_away_is_told(
    app: Any, client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAUSE", 0.0)
    monkeypatch.setattr(waiting, "GONE_SECONDS", -1.0)
    with served(Cutting(app, down=99)) as found, Client(found, retries=0) as other:
        lost = other.jobs.get(job.id)
        end(job, ticks=3)
        with pytest.raises((ApiError, httpx.TransportError)):
            list(lost.events())
    with Client("http://127.0.0.1:1") as nowhere:
        gone = client.jobs.get(job.id)
        gone._transport = nowhere._transport
        monkeypatch.setattr(nowhere._transport, "_retries", 0)
        with pytest.raises(httpx.ConnectError):
            gone.wait()


def test_what_the_listener_raises_ends_the_wait(job: Job) -> None:
    def full(event: EventOut) -> None:
        raise ConnectionError(event.type)

    with pytest.raises(ConnectionError, match=r"job\.created"):
        job.wait(on_event=full)


@pytest.mark.anyio
async def test_the_same_without_waiting(url: str, job: Job) -> None:
    async with AsyncClient(url) as client:
        mine = await client.jobs.get(job.id)
        first = []
        async for event in mine.events():
            first.append(event)
            if event.seq == 3:
                await mine.cancel()
        told: list[EventOut] = []
        with pytest.raises(JobFailed):
            await mine.wait(on_event=told.append)
        assert told == first and first[-1].type == "job.cancelled"
        assert [one.number async for one in mine.iterations()] == [0]
