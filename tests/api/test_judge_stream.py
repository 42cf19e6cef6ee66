"""POST /judge with `stream`: events as the engine writes, through evaluator and gateway."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from selftaught.client import ApiError, Client, JudgeEvent
from selftaught.contracts import JudgeDelta, JudgeOut, JudgeRestart, JudgeStart, SamplingSettings
from selftaught.inference import EngineRefused, EngineUnavailable, Request
from selftaught.inference.openai import OpenAIEngine
from selftaught.settings import get_settings
from selftaught.sse import Reader
from services.api.main import create_app as gateway_app
from services.evaluator import judge as service
from services.evaluator import live
from services.evaluator.main import create_app as evaluator_app
from tests.api.conftest import assert_problem
from tests.api.helpers import add_versions, served
from tests.api.test_evaluator import GOOD_FIRST, Engine, until
from tests.conftest import Servers
from tests.inference.standin import standin

Events = Iterator[tuple[str, Any]]
STREAM = {**GOOD_FIRST, "stream": True}
LINEAGE = {
    "template": {"name": "mt-bench"},
    "inference": "local",
    "judge_max_tokens": 77,
    "judge_sampling": {"temperature": 0.5, "max_tokens": 9},
}


class Writer(Engine):
    """Writes what it answers letter by letter, and ends when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.end = threading.Event()
        self.end.set()

    def generate(self, requests: Sequence[Request], sampling: SamplingSettings) -> Any:
        answers = super().generate(requests, sampling)
        for request, (vote, *_) in zip(requests, answers, strict=True):
            for end in range(1, len(vote.text) + 1):
                if request.hear is not None:
                    request.hear(vote.text[:end])
        assert self.end.wait(30)
        return answers


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    found = Writer()
    monkeypatch.setattr(service, "open_version", lambda version, patience: found)
    yield found
    for gate in (found.hold, found.end):
        gate.set()


@pytest.fixture
def evaluator(database: Servers, engine: Writer) -> Iterator[httpx.Client]:
    add_versions("m", [0], latest=0, lineage=LINEAGE)
    with served(evaluator_app()) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def gateway(evaluator: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    urls = f"http://127.0.0.1:1,{evaluator.base_url}"  # the first replica is not there
    monkeypatch.setattr(get_settings(), "evaluator_url", urls)
    with served(gateway_app()) as url, Client(url, timeout=30) as client:
        yield client


def read(response: httpx.Response) -> Events:
    """The events of a stream, as they come."""
    assert response.status_code == 200, response.read()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    reader = Reader()
    for line in response.iter_lines():
        if (found := reader.line(line)) is not None:
            yield found[0], json.loads(found[1])


def ask(client: httpx.Client, **change: Any) -> list[tuple[str, Any]]:
    """All events of a call."""
    with client.stream("POST", "/judge", json={**STREAM, **change}) as response:
        return list(read(response))


def texts(events: Sequence[tuple[str, Any]]) -> dict[str, str]:
    """What the deltas make of each order."""
    found: dict[str, str] = {}
    for name, data in events:
        if name == "delta":
            found[data["order"]] = found.get(data["order"], "") + data["text"]
    return found


def named(events: Iterator[JudgeEvent]) -> Events:
    """What the client makes of a stream, as `read` gives it."""
    names = {JudgeStart: "start", JudgeDelta: "delta", JudgeRestart: "restart", JudgeOut: "verdict"}
    for one in events:
        yield names[type(one)], one.model_dump(mode="json")


def read_until(events: Events, wanted: dict[str, str]) -> list[tuple[str, Any]]:
    """Events up to where the texts are these."""
    seen = []
    for one in events:
        seen.append(one)
        if texts(seen) == wanted:
            return seen
    raise AssertionError(f"the stream has ended: {seen}")


WRITTEN = {"AB": "because\n[[A]]", "BA": "well\n[[B]]"}


def same(verdict: dict[str, Any]) -> dict[str, Any]:
    """What two answers to the same question share."""
    return {key: verdict[key] for key in verdict.keys() - {"id", "latency", "cached"}}


def test_text_comes_before_the_engine_has_ended_and_then_the_plain_answer(
    evaluator: httpx.Client, engine: Writer
) -> None:
    engine.end.clear()
    with evaluator.stream("POST", "/judge", json=STREAM) as response:
        events = read(response)
        (name, start), *rest = read_until(events, WRITTEN)
        assert name == "start" and {name for name, _ in rest} == {"delta"}
        assert not engine.end.is_set()
        engine.end.set()
        ((name, verdict),) = events
    assert name == "verdict" and verdict["verdict"] == "A" and not verdict["cached"]
    assert start == {key: verdict[key] for key in ("model", "template", "template_sha256")} | {
        "orders": ["AB", "BA"]
    }
    plain = evaluator.post("/judge", json=GOOD_FIRST).json()
    assert plain["cached"] and same(plain) == same(verdict) and verdict.keys() == plain.keys()
    assert 'verdicts_total{verdict="A"} 2.0' in metrics(evaluator)


def test_a_former_answer_is_streamed_at_once(evaluator: httpx.Client, engine: Writer) -> None:
    first = evaluator.post("/judge", json=GOOD_FIRST).json()
    events = ask(evaluator)
    assert [name for name, _ in events] == ["start", "delta", "delta", "verdict"]
    assert texts(events) == WRITTEN and len(engine.asked) == 1
    assert events[-1][1]["cached"] and same(events[-1][1]) == same(first)


def test_one_order_and_no_explanation(evaluator: httpx.Client) -> None:
    events = ask(evaluator, both_orders=False, explain=False)
    assert events[0][1]["orders"] == ["AB"] and texts(events) == {"AB": WRITTEN["AB"]}
    assert events[-1][1]["orders"][0]["reasoning"] is None


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "none"}, 404, "unknown_model"),
        ({"template": "none"}, 404, "unknown_template"),
        ({"votes": 2}, 422, "invalid_request"),
    ],
)
def test_what_fails_before_the_start_has_its_status(
    gateway: Client, evaluator: httpx.Client, change: dict[str, Any], status: int, code: str
) -> None:
    assert_problem(evaluator.post("/judge", json={**STREAM, **change}), status, code)
    with pytest.raises(ApiError) as caught:
        gateway.call("POST", "/judge", json={**STREAM, **change})
    assert (caught.value.status, caught.value.problem["code"]) == (status, code)


def test_a_stream_takes_room_as_every_call(
    evaluator: httpx.Client, engine: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "judge_in_flight", 1)
    with served(evaluator_app()) as url, httpx.Client(base_url=url, timeout=30) as narrow:
        engine.end.clear()
        with narrow.stream("POST", "/judge", json=STREAM) as response:
            events = read(response)
            read_until(events, WRITTEN)
            answer = narrow.post("/judge", json={**STREAM, "response_b": "bad too"})
            assert_problem(answer, 429, "too_many_calls")
            assert answer.headers["retry-after"] == "1"
            engine.end.set()
            assert next(events)[0] == "verdict"
        assert ask(narrow)[-1][0] == "verdict"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EngineUnavailable("down"), 503, "engine_unavailable"),
        (EngineRefused(401, "bad key"), 502, "engine_refused"),
        (ZeroDivisionError("oops"), 500, "internal_error"),
    ],
)
def test_what_fails_later_is_an_event(
    gateway: Client,
    evaluator: httpx.Client,
    engine: Writer,
    error: Exception,
    status: int,
    code: str,
) -> None:
    engine.error = error
    (started, _), (failed, problem) = ask(evaluator)
    plain = assert_problem(evaluator.post("/judge", json=GOOD_FIRST), status, code)
    assert (started, failed) == ("start", "error")
    assert problem | {"request_id": ""} == plain | {"request_id": ""}
    with pytest.raises(ApiError, match=code) as caught:
        list(gateway.judge_stream("i", "good", "bad"))
    assert caught.value.status == status and caught.value.problem["request_id"]


def test_a_pair_that_is_too_long_and_a_time_that_is_over(
    evaluator: httpx.Client, engine: Writer
) -> None:
    engine.hold.clear()
    (_, late) = ask(evaluator, timeout_seconds=0.2)
    assert late[0] == "error" and late[1]["code"] == "deadline_exceeded"
    engine.hold.set()
    engine.finish = "rejected"
    problem = ask(evaluator, response_b="bad and long")[-1][1]
    assert (problem["status"], problem["code"]) == (422, "too_long")


def test_equal_calls_in_flight_are_not_one_with_a_stream(
    evaluator: httpx.Client, engine: Writer
) -> None:
    engine.end.clear()
    with ThreadPoolExecutor(1) as pool:
        plain = pool.submit(evaluator.post, "/judge", json=GOOD_FIRST)
        assert engine.begun.acquire(timeout=30)
        with evaluator.stream("POST", "/judge", json=STREAM) as response:
            events = read(response)
            assert next(events)[0] == "start"
            engine.end.set()
            last = list(events)
        assert texts(last) == WRITTEN and not last[-1][1]["cached"]
        assert same(last[-1][1]) == same(plain.result(30).json())
    assert len(engine.asked) == 2


def test_who_waits_hears_that_somebody_is_there(
    gateway: Client, engine: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_SECONDS", 0.02)
    engine.hold.clear()
    with gateway._transport.http.stream("POST", "/judge", json=STREAM) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: start"
        found = itertools.dropwhile(lambda line: not line.startswith(":"), lines)
        assert next(found) == ": keep-alive"
        engine.hold.set()
        assert "event: verdict" in found


def metrics(client: httpx.Client) -> str:
    return client.get("/metrics").text


def test_a_client_that_leaves_while_it_waits_is_not_asked_for(
    gateway: Client, evaluator: httpx.Client, engine: Writer
) -> None:
    engine.hold.clear()
    first = gateway.judge_stream(*("i", "good", "bad"))
    assert isinstance(next(first), JudgeStart) and engine.begun.acquire(timeout=30)
    waiting = gateway.judge_stream("i", "good", "bad too")
    assert isinstance(next(waiting), JudgeStart)
    assert "in_flight 2.0" in metrics(evaluator)
    waiting.close()
    until(lambda: "in_flight 1.0" in metrics(evaluator))
    engine.hold.set()
    assert isinstance(list(first)[-1], JudgeOut)
    assert len(engine.asked) == 1


def test_a_client_that_leaves_ends_the_servers_work(
    gateway: Client, evaluator: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standin() as server:
        server.fault = "hold"
        server.reply = lambda text, seed: "word after word"
        engine = OpenAIEngine(server.url, "judge")
        monkeypatch.setattr(service, "open_version", lambda version, patience: engine)
        with ExitStack() as leaving:
            apps = (evaluator_app(), gateway_app())  # after the one in `evaluator` has opened
            url = leaving.enter_context(served(apps[0]))
            monkeypatch.setattr(get_settings(), "evaluator_url", url)
            client = leaving.enter_context(Client(leaving.enter_context(served(apps[1]))))
            events = client.judge_stream("i", "good", "bad", model="m:0")
            read_until(named(events), {"AB": "word after ", "BA": "word after "})
            assert server.left == 0
            events.close()
            until(lambda: server.left == 2)


def test_the_gateway_passes_on_what_comes_and_the_header_names_the_model(
    gateway: Client, evaluator: httpx.Client, engine: Writer
) -> None:
    engine.end.clear()
    headers = {"selftaught-model": "m:0", "x-request-id": "mine"}
    with gateway._transport.http.stream(
        "POST", "/v1/judge", json=STREAM, headers=headers
    ) as response:
        events = read(response)
        assert response.headers["x-request-id"] == "mine"
        assert read_until(events, WRITTEN)[0][1]["model"] == "m:0"
        engine.end.set()
        ((name, verdict),) = events
    answer = gateway.judge("i", "good", "bad", explain=True)
    assert name == "verdict" and same(verdict) == same(answer.model_dump(mode="json"))
    wrong = gateway._transport.http.post("/judge", json=STREAM, headers={"selftaught-model": "m:7"})
    assert_problem(wrong, 404, "unknown_model")


@pytest.mark.parametrize("ends", ["chunked", "cut"])
def test_an_evaluator_that_is_lost_in_the_middle(
    database: Servers, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Whole events are passed on, and half of one is not."""
    start = JudgeStart(model="m:0", template="t", template_sha256="x", orders=["AB"])
    begun = b"event: start\ndata: " + start.model_dump_json().encode()
    parts = [begun + b"\n", b"\n", b'event: delta\ndata: {"order": "']

    started = threading.Event()

    def lose() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for part in parts:
                connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            assert started.wait(30)
            if ends == "chunked":
                connection.sendall(b"0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lose)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setattr(get_settings(), "evaluator_url", url)
        with served(gateway_app()) as gateway_url, Client(gateway_url) as client:
            events = client.judge_stream("i", "good", "bad")
            assert next(events) == start
            started.set()
            with pytest.raises(ApiError) as caught:
                next(events)
        thread.join()
    assert (caught.value.status, caught.value.problem["code"]) == (503, "evaluator_lost")
    assert caught.value.problem["request_id"]


def test_the_stream_is_documented(gateway: Client) -> None:
    schema = gateway.call("GET", "/openapi.json")
    content = schema["paths"]["/judge"]["post"]["responses"]["200"]["content"]
    assert list(content) == ["application/json", "text/event-stream"]
    reader = Reader()
    lines = content["text/event-stream"]["example"].splitlines()
    named = [found[0] for line in lines if (found := reader.line(line)) is not None]
    assert named == ["start", "delta", "delta", "verdict"]
