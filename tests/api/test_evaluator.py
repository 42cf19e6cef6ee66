"""The judge service with an engine that prefers whatever says "good"."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from selftaught import aliases
from selftaught.contracts import JudgeIn, SamplingSettings
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.inference import (
    Completion,
    EngineRefused,
    EngineUnavailable,
    ModelLoadError,
    Request,
)
from selftaught.judging.fencing import FENCE
from selftaught.settings import get_settings
from services.evaluator import judge as service
from services.evaluator.main import create_app
from tests.api.conftest import assert_problem
from tests.conftest import Servers

GOOD_FIRST = {"instruction": "i", "response_a": "good", "response_b": "bad", "explain": True}


class Engine:
    """Finds the longer text of A or B; `say` overrides what it answers to request number n."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Request], SamplingSettings]] = []
        self.say: dict[int, list[str]] = {}
        self.finish = "stop"
        self.error: Exception | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.begun = threading.Semaphore(0)

    def generate(self, requests: Sequence[Request], sampling: SamplingSettings) -> Any:
        self.asked.append((requests, sampling))
        self.begun.release()
        assert self.hold.wait(30)
        if self.error is not None:
            raise self.error
        return [
            [
                Completion(text, self.finish, 10, 3)  # type: ignore[arg-type]
                for text in self.say.get(number, [self._read(request)] * request.n)
            ]
            for number, request in enumerate(requests)
        ]

    def close(self) -> None: ...

    @staticmethod
    def _read(request: Request) -> str:
        # A fence is hexadecimal and has a "bad" in it now and then.
        shown = FENCE.sub("", request.messages[-1]["content"])
        return "because\n[[A]]" if shown.index("good") < shown.index("bad") else "well\n[[B]]"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()
    monkeypatch.setattr(service, "open_version", lambda version, patience: found)
    monkeypatch.setattr(get_settings(), "judge_in_flight", 3)
    return found


@pytest.fixture
def evaluator(database: Servers, engine: Engine) -> Iterator[TestClient]:
    with transaction() as session:
        for number in (0, 1):
            session.add(
                ModelVersion(
                    id=f"ver_{number}", model="m", number=number, path="x", sha256="x",
                    lineage={
                        "template": {"name": "mt-bench"},
                        "inference": "local",
                        "judge_max_tokens": 77 + number,
                        "judge_sampling": {"temperature": 0.5, "max_tokens": 9},
                    },
                )
            )  # fmt: skip
    with TestClient(create_app(), "http://localhost", raise_server_exceptions=False) as found:
        yield found


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def promote(number: int) -> None:
    with transaction() as session:
        aliases.move(session, "m", "latest", number, "test")


def test_both_orders_agree(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    out = evaluator.post("/judge", json=GOOD_FIRST).json()
    assert (out["verdict"], out["confidence"], out["orders_agree"]) == ("A", 1.0, True)
    assert [(o["order"], o["verdict"], o["reasoning"]) for o in out["orders"]] == [
        ("AB", "A", "because\n[[A]]"),
        ("BA", "A", "well\n[[B]]"),
    ]
    assert (out["model"], out["template"], out["job"]) == ("m:0", "mt-bench", None)
    assert (out["prompt_tokens"], out["completion_tokens"], out["cached"]) == (20, 6, False)
    latency = out["latency"]
    assert latency["queue"] + latency["engine"] <= latency["total"]
    (_, sampling) = engine.asked[0]
    assert (sampling.temperature, sampling.max_tokens) == (0, 77)


def test_a_judge_that_likes_the_first_place_is_a_tie(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.say = {0: ["[[A]]"], 1: ["[[A]]"]}
    out = evaluator.post("/judge", json=GOOD_FIRST).json()
    assert (out["verdict"], out["orders_agree"]) == ("tie", False)
    assert [o["verdict"] for o in out["orders"]] == ["A", "B"]


def test_votes_are_sampled_and_counted(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.say = {0: ["x [[A]]", "y [[B]]", "z [[A]]", "mumble"]}
    body = {**GOOD_FIRST, "votes": 4, "both_orders": False}
    out = evaluator.post("/judge", json=body).json()
    assert (out["verdict"], out["confidence"], out["parse_failures"]) == ("A", 0.5, 1)
    assert out["orders_agree"] is None and out["orders"][0]["reasoning"] == "x [[A]]"
    requests, sampling = engine.asked[0]
    assert [r.n for r in requests] == [4] and sampling.temperature == 0.5


def test_reasoning_is_of_a_vote_for_the_verdict(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.say = {0: ["[[A]]"] * 3, 1: ["p [[A]]", "q [[B]]", "r [[B]]"]}
    out = evaluator.post("/judge", json={**GOOD_FIRST, "votes": 3}).json()
    assert (out["orders"][1]["verdict"], out["orders"][1]["reasoning"]) == ("A", "q [[B]]")
    assert (out["verdict"], out["confidence"]) == ("A", pytest.approx(5 / 6))


def test_a_moved_alias_counts_at_once(evaluator: TestClient) -> None:
    body = assert_problem(evaluator.post("/judge", json=GOOD_FIRST), 409, "no_model")
    assert "promoted" in body["detail"]
    for number in (0, 1):
        promote(number)
        assert evaluator.post("/judge", json=GOOD_FIRST).json()["model"] == f"m:{number}"
    exact = evaluator.post("/judge", json={**GOOD_FIRST, "model": "m:0"}).json()
    assert exact["model"] == "m:0"


@pytest.mark.parametrize("model", ["none", "m:7", "m:x", "a\0b", ""])
def test_models_that_are_not_there(evaluator: TestClient, model: str) -> None:
    promote(0)
    answer = evaluator.post("/judge", json={**GOOD_FIRST, "model": model})
    assert_problem(answer, 404, "unknown_model")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EngineUnavailable("down"), 503, "engine_unavailable"),
        (EngineRefused(401, "bad key"), 502, "engine_refused"),
        (ModelLoadError("no weights"), 500, "model_failed"),
    ],
)
def test_engines_that_fail(
    evaluator: TestClient, engine: Engine, error: Exception, status: int, code: str
) -> None:
    promote(0)
    engine.error = error
    body = assert_problem(evaluator.post("/judge", json=GOOD_FIRST), status, code)
    assert "bad key" not in body["detail"]


def test_a_pair_that_is_too_long(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.finish = "rejected"
    assert_problem(evaluator.post("/judge", json=GOOD_FIRST), 422, "too_long")


def test_a_conversation_a_reference_and_a_rubric(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    body = {
        "messages": [*turns, {"role": "user", "content": "sum it up"}],
        "response_a": "A: good", "response_b": "bad", "reference": "R!", "rubric": "be brief",
        "template": "verdict-only",
    }  # fmt: skip
    out = evaluator.post("/judge", json=body).json()
    assert out["template"] == "verdict-only" and out["orders"][0]["reasoning"] is None
    (requests, _) = engine.asked[0]
    shown = requests[0].messages[-1]["content"]
    places = [
        shown.index(part) for part in ("hi", "yes?", "sum it up", "R!", "be brief", "A: good")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "body"),
        ({"instruction": None}, "body"),
        ({"instruction": None, "messages": [{"role": "assistant", "content": "x"}]}, "body"),
        (
            {"instruction": None, "messages": [{"role": "user", "content": "x" * 80_001}] * 5},
            "body",
        ),
        ({"votes": 65}, "votes"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"shout": True}, "shout"),
    ],
)
def test_questions_that_make_no_sense(
    evaluator: TestClient, change: dict[str, Any], field: str
) -> None:
    promote(0)
    answer = evaluator.post("/judge", json={**GOOD_FIRST, **change})
    assert_problem(answer, 422, "invalid_request", field)


def test_how_long_a_conversation_may_be() -> None:
    turn = {"role": "user", "content": "x" * 100_000}
    answers = {"response_a": "a", "response_b": "b"}
    assert JudgeIn.model_validate({"messages": [turn] * 4, **answers})
    with pytest.raises(ValidationError, match="400,001 characters together; at most 400,000"):
        JudgeIn.model_validate({"messages": [turn] * 4 + [{**turn, "content": "x"}], **answers})


def test_what_aliases_name_is_opened_at_the_start(
    evaluator: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_version(version: ModelVersion, patience: float) -> Engine:
        opened.append(version.ref)
        raise ModelLoadError("no weights")  # which keeps nobody from starting

    monkeypatch.setattr(service, "open_version", open_version)
    promote(1)
    with TestClient(create_app(), "http://localhost", raise_server_exceptions=False) as another:
        assert set(opened) == {"m:1"}
        assert_problem(another.post("/judge", json=GOOD_FIRST), 500, "model_failed")
    assert set(opened) == {"m:1"}


def test_a_template_that_is_not_there(evaluator: TestClient) -> None:
    promote(0)
    answer = evaluator.post("/judge", json={**GOOD_FIRST, "template": "modify"})
    assert_problem(answer, 404, "unknown_template", "template")


@pytest.mark.parametrize("path", ["/judge", "/v1/score"])
def test_a_template_that_can_be_no_name(evaluator: TestClient, path: str) -> None:
    promote(0)
    body = {"instruction": "i", "response": "a"} if path == "/v1/score" else GOOD_FIRST
    answer = evaluator.post(path, json={**body, "template": "a\0b"})
    assert_problem(answer, 404, "unknown_template", "template")
    for field in ("template", "model"):
        content = json.dumps({**body, field: "\ud800"})
        headers = {"content-type": "application/json"}
        answer = evaluator.post(path, content=content, headers=headers)
        assert_problem(answer, 422, "invalid_request")


def test_equal_calls_are_answered_from_the_cache(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    first, second = (evaluator.post("/judge", json=GOOD_FIRST).json() for _ in range(2))
    assert (first["cached"], second["cached"], len(engine.asked)) == (False, True, 1)
    own = {"id": 0, "cached": 0, "latency": 0}
    assert first["id"] != second["id"] and first | own == second | own
    for change in ({"response_b": "bad!"}, {"template": "plan-execute"}, {"model": "m:1"}):
        assert not evaluator.post("/judge", json={**GOOD_FIRST, **change}).json()["cached"]
    # Not for several votes, and not if the caller does not want it; unless he does.
    asked = len(engine.asked)
    for change in ({"votes": 2}, {"votes": 2}, {"cache": False}, {"votes": 2, "cache": True}):
        assert not evaluator.post("/judge", json={**GOOD_FIRST, **change}).json()["cached"]
    assert len(engine.asked) == asked + 4
    assert evaluator.post("/judge", json={**GOOD_FIRST, "votes": 2, "cache": True}).json()["cached"]


def in_background(evaluator: TestClient, **body: Any) -> Future[httpx.Response]:
    pool = ThreadPoolExecutor(1)
    return pool.submit(evaluator.post, "/judge", json={**GOOD_FIRST, **body})


def test_calls_that_wait_are_one_batch_and_equal_ones_are_one(
    evaluator: TestClient, engine: Engine
) -> None:
    promote(0)
    engine.hold.clear()
    calls = [in_background(evaluator)]
    assert engine.begun.acquire(timeout=30)  # the first call has the engine
    calls += [in_background(evaluator, response_b="bad 2"), in_background(evaluator)]
    until(lambda: "in_flight 3.0" in evaluator.get("/metrics").text)
    refused = evaluator.post("/judge", json={**GOOD_FIRST, "response_b": "bad 3"})
    assert_problem(refused, 429, "too_many_calls")
    assert refused.headers["retry-after"] == "1"
    engine.hold.set()
    assert [call.result(30).json()["verdict"] for call in calls] == ["A"] * 3
    assert [len(requests) for requests, _ in engine.asked] == [2, 2]


def test_a_call_that_takes_too_long(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.hold.clear()
    try:
        answer = evaluator.post("/judge", json={**GOOD_FIRST, "timeout_seconds": 0.2})
        assert_problem(answer, 504, "deadline_exceeded")
    finally:
        engine.hold.set()
    assert evaluator.post("/judge", json=GOOD_FIRST).json()["verdict"] == "A"


def test_probes_and_metrics(evaluator: TestClient) -> None:
    promote(0)
    evaluator.post("/judge", json=GOOD_FIRST)
    assert evaluator.get("/healthz").status_code == 200
    assert evaluator.get("/readyz").json()["checks"] == {"postgres": "ok", "schema": "ok"}
    assert 'selftaught_verdicts_total{verdict="A"} 1.0' in evaluator.get("/metrics").text
    assert_problem(evaluator.post("/judge", json={}), 422, "invalid_request", "response_a")
