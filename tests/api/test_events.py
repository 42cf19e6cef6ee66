"""Events as pages and as a stream."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from selftaught.contracts import EventOut, Page
from selftaught.database import transaction
from selftaught.keeping import erase
from selftaught.work import control
from selftaught.work.events import emit
from services.api import events as route
from tests.api.conftest import assert_problem
from tests.api.helpers import post_job, upload
from tests.api.test_access import as_key, make_key
from tests.api.test_evaluator import until

SSE = {"accept": "text/event-stream"}


def parse(text: str) -> list[dict[str, Any]]:
    """The events of a stream: id, type and data."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":")
        )
        if fields:
            data = json.loads(fields["data"])
            assert str(data["seq"]) == fields["id"] and data["type"] == fields["event"]
            found.append(data)
    return found


def new_job(client: TestClient) -> str:
    return str(post_job(client, upload(client)).json()["id"])


def test_pages(client: TestClient) -> None:
    job = new_job(client)
    page = client.get(f"/v1/jobs/{job}/events?limit=2").json()
    assert [e["seq"] for e in page["data"]] == [1, 2] and page["has_more"]
    assert page["data"][0]["type"] == "job.created"
    rest = client.get(f"/v1/jobs/{job}/events?after=2").json()
    assert [e["seq"] for e in rest["data"]] == [3] and not rest["has_more"]
    assert_problem(client.get("/v1/jobs/job_none/events"), 404, "job_not_found")
    assert_problem(client.get("/v1/jobs/job_none/events", headers=SSE), 404, "job_not_found")


def test_a_finished_jobs_stream_is_its_page_and_ends(client: TestClient) -> None:
    job = new_job(client)
    client.post(f"/v1/jobs/{job}/cancel")
    page = client.get(f"/v1/jobs/{job}/events").json()["data"]
    answer = client.get(f"/v1/jobs/{job}/events", headers=SSE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert parse(answer.text) == page
    assert page[-1]["type"] == "job.cancelled"


def test_a_finished_jobs_stream_is_longer_than_a_page(client: TestClient) -> None:
    job = new_job(client)
    with transaction() as session:
        for number in range(230):
            emit(session, job, "tick", {"number": number})
    client.post(f"/v1/jobs/{job}/cancel")
    events = parse(client.get(f"/v1/jobs/{job}/events", headers=SSE).text)
    assert [e["seq"] for e in events] == list(range(1, 3 + 230 + 2 + 1))


def test_resume_after_the_last_event_seen(client: TestClient) -> None:
    job = new_job(client)
    client.post(f"/v1/jobs/{job}/cancel")
    everything = parse(client.get(f"/v1/jobs/{job}/events", headers=SSE).text)
    for seen in (0, 2, len(everything) - 1):
        headers = {**SSE, "last-event-id": str(seen)}
        resumed = parse(client.get(f"/v1/jobs/{job}/events?after=1", headers=headers).text)
        assert resumed == everything[seen:]
    headers = {**SSE, "last-event-id": str(len(everything))}
    over = client.get(f"/v1/jobs/{job}/events", headers=headers)
    assert (over.status_code, over.text) == (204, ""), "a browser must stop asking"
    bad = client.get(f"/v1/jobs/{job}/events", headers={**SSE, "last-event-id": "x"})
    assert_problem(bad, 422, "invalid_request", "last-event-id")


def test_a_stream_follows_a_running_job_to_its_end(client: TestClient) -> None:
    job = new_job(client)

    def go_on() -> None:
        time.sleep(0.3)
        for number in range(250):  # more than a page
            with transaction() as session:
                emit(session, job, "tick", {"number": number})
        with transaction() as session:
            control.cancel_job(session, job)

    worker = threading.Thread(target=go_on)
    worker.start()
    events = parse(client.get(f"/v1/jobs/{job}/events", headers=SSE).text)
    worker.join()
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert sum(e["type"] == "tick" for e in events) == 250
    assert events[-1]["type"] == "job.cancelled"


def once_it_streams(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    """`deed` is done when the stream has read its first page."""
    read, reads = route.read, itertools.count()

    def reading(job_id: str, after: int, limit: int) -> tuple[Page[EventOut], bool]:
        found = read(job_id, after, limit)
        if next(reads) == 1:  # the route itself reads before it streams
            deed()
        return found

    monkeypatch.setattr(route, "read", reading)


def test_a_stream_ends_with_its_key(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    job = new_job(client)
    key = make_key(client, "watcher", "read")
    headers = {**SSE, **as_key(client, key["secret"])}
    once_it_streams(monkeypatch, lambda: client.delete(f"/v1/keys/{key['id']}"))
    events = parse(client.get(f"/v1/jobs/{job}/events", headers=headers).text)
    assert events and events[-1]["type"] != "job.cancelled"  # the job goes on
    assert_problem(client.get(f"/v1/jobs/{job}/events", headers=headers), 401, "invalid_key")


def test_a_stream_ends_with_its_job(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    job = new_job(client)

    def deleted() -> None:
        with transaction() as session:
            control.cancel_job(session, job)
            erase.job(session, job)

    once_it_streams(monkeypatch, deleted)
    loud = TestClient(client.app, "http://localhost")  # a stream that breaks off raises here
    events = parse(loud.get(f"/v1/jobs/{job}/events", headers=SSE).text)
    assert events and events[-1]["type"] != "job.cancelled"  # it went with the job
    assert_problem(client.get(f"/v1/jobs/{job}/events", headers=SSE), 404, "job_not_found")


def open_streams(client: TestClient) -> dict[str, int]:
    found: dict[str, int] = client.app.state.streams  # type: ignore[attr-defined]
    return found


def test_a_project_has_only_so_many_streams(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "MOST_STREAMS", 2)
    job = new_job(client)
    path = f"/v1/jobs/{job}/events"
    streams = open_streams(client)
    client.post("/v1/projects", json={"id": "theirs"}).raise_for_status()
    key = client.post("/v1/projects/theirs/keys", json={"name": "k", "scopes": ["read"]}).json()
    with ThreadPoolExecutor(2) as pool:
        watching = [pool.submit(client.get, path, headers=SSE) for _ in range(2)]
        until(lambda: streams == {"default": 2})
        one_more = client.get(path, headers=SSE)
        assert_problem(one_more, 429, "too_many_streams")
        assert one_more.headers["retry-after"] == "15"
        assert client.get(path).is_success  # pages are no streams
        # Another project's are counted apart: this one is let in, and finds no such job.
        theirs = client.get(path, headers={**SSE, **as_key(client, key["secret"])})
        assert_problem(theirs, 404, "job_not_found")
        client.post(f"/v1/jobs/{job}/cancel")
        assert {one.result().status_code for one in watching} == {200}
    assert not streams
    assert client.get(path, headers=SSE).is_success and not streams


def test_who_hangs_up_has_no_stream_any_longer(client: TestClient) -> None:
    job = new_job(client)
    streams = open_streams(client)
    headers = [(b"host", b"localhost"), (b"accept", SSE["accept"].encode())]
    scope = {
        "type": "http", "method": "GET", "path": f"/v1/jobs/{job}/events", "headers": headers,
        "query_string": b"", "client": ("127.0.0.1", 1), "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    counted = []

    async def watch_one_event() -> None:
        came = anyio.Event()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request"}
            await came.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message.get("body"):
                counted.append(dict(streams))
                came.set()

        with anyio.fail_after(30):
            await client.app(scope, receive, send)

    anyio.run(watch_one_event)
    assert counted[0] == {"default": 1} and not streams
