"""POST /v1/score and /v1/rank, with an engine that likes the response with the larger number."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from selftaught.inference import EngineUnavailable, Request
from selftaught.settings import get_settings
from services.api.main import create_app
from services.evaluator import judge as service
from services.evaluator.main import create_app as create_evaluator
from tests.api import test_evaluator
from tests.api.conftest import assert_problem
from tests.api.helpers import served
from tests.api.test_evaluator import Engine, promote, until

SCORE = {"instruction": "i", "response": "r", "explain": True}
RANK = {"instruction": "i", "responses": ["w3", "w9", "w1", "w5"]}

evaluator = test_evaluator.evaluator


class Ranker(Engine):
    """Compares the numbers behind the letter w; equal ones tie."""

    @staticmethod
    def _read(request: Request) -> str:
        shown = re.findall(r"w(\d+)", request.messages[-1]["content"])
        if len(shown) != 2:
            return "nothing to compare"
        first, second = map(int, shown)
        return "[[A]]" if first > second else "[[B]]" if second > first else "[[C]]"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Ranker()
    monkeypatch.setattr(service, "open_version", lambda version, patience: found)
    return found


def test_a_score_is_the_mean_of_the_votes_that_can_be_read(
    evaluator: TestClient, engine: Engine
) -> None:
    promote(0)
    engine.say = {0: ["fine\n8", "so so\n7.5", "mumble", "8 of 10\n8/10"]}
    out = evaluator.post("/v1/score", json={**SCORE, "votes": 4}).json()
    assert (out["score"], out["scores"], out["parse_failures"]) == (7.75, [8, 7.5], 2)
    assert (out["reasoning"], out["model"], out["template"]) == ("fine\n8", "m:0", "score")
    assert (out["prompt_tokens"], out["completion_tokens"]) == (10, 12)
    ((requests, sampling),) = engine.asked
    assert ([r.n for r in requests], sampling.temperature) == ([4], 0.5)
    assert "r" in requests[0].messages[-1]["content"]


def test_one_greedy_vote_is_kept_and_given_again(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.say = {0: ["10"]}
    first, second = (evaluator.post("/v1/score", json=SCORE).json() for _ in range(2))
    assert (first["score"], first["cached"], second["cached"]) == (10, False, True)
    ((_, sampling),) = engine.asked
    assert (sampling.temperature, sampling.max_tokens) == (0, 77)


def test_no_vote_can_be_read(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.say = {0: ["good"]}
    out = evaluator.post("/v1/score", json={**SCORE, "explain": False}).json()
    assert (out["score"], out["scores"], out["parse_failures"]) == (None, [], 1)
    assert out["reasoning"] is None
    engine.say, engine.finish = {0: ["it is 1\n1"]}, "length"  # who knows: 10?
    assert evaluator.post("/v1/score", json={**SCORE, "response": "x"}).json()["score"] is None


def test_scores_that_cannot_be_given(evaluator: TestClient, engine: Engine) -> None:
    assert_problem(evaluator.post("/v1/score", json=SCORE), 409, "no_model")
    promote(0)
    for template in ("nope", "mt-bench"):
        answer = evaluator.post("/v1/score", json={**SCORE, "template": template})
        assert_problem(answer, 404, "unknown_template", "template")
    engine.say, engine.finish = {0: [""]}, "rejected"
    assert_problem(evaluator.post("/v1/score", json=SCORE), 422, "too_long")
    for change, field in (({"votes": 0}, "votes"), ({"response_a": "x"}, "response_a")):
        answer = evaluator.post("/v1/score", json={**SCORE, **change})
        assert_problem(answer, 422, "invalid_request", field)
    engine.error = EngineUnavailable("down")
    answer = evaluator.post("/v1/score", json={**SCORE, "response": "other"})
    assert_problem(answer, 503, "engine_unavailable")


def test_a_score_template_of_ones_own(
    client: TestClient, evaluator: TestClient, engine: Engine
) -> None:
    promote(0)
    own = {"name": "stars", "kind": "score", "user": "How good for {instruction}? {response}"}
    made = client.post("/v1/templates", json=own)
    assert (made.status_code, made.json()["kind"]) == (201, "score")
    listed = client.get("/v1/templates", params={"limit": 100}).json()["data"]
    assert {"score", "stars"} <= {one["name"] for one in listed if one["kind"] == "score"}
    engine.say = {0: ["3"]}
    out = evaluator.post("/v1/score", json={**SCORE, "template": "stars"}).json()
    assert (out["score"], out["template_sha256"]) == (3, made.json()["sha256"])
    assert engine.asked[0][0][0].messages == [{"role": "user", "content": "How good for i? r"}]
    bad = client.post("/v1/templates", json={**own, "name": "x", "user": "{response}"})
    assert_problem(bad, 422, "invalid_template")


def test_a_tournament(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    out = evaluator.post("/v1/rank", json=RANK).json()
    assert [(one["response"], one["rank"]) for one in out["ranking"]] == [
        (1, 1), (3, 2), (0, 3), (2, 4),
    ]  # fmt: skip
    assert [(one["wins"], one["losses"]) for one in out["ranking"]] == [
        (3, 0), (2, 1), (1, 2), (0, 3),
    ]  # fmt: skip
    strengths = [one["strength"] for one in out["ranking"]]
    assert strengths == sorted(strengths, reverse=True)
    assert all(one["ci95"][0] < one["strength"] < one["ci95"][1] for one in out["ranking"])
    assert (out["comparisons"], out["unparsable"], out["model"]) == (6, 0, "m:0")
    assert sum(len(requests) for requests, _ in engine.asked) == 12
    assert (out["prompt_tokens"], out["completion_tokens"]) == (120, 36)
    asked = len(engine.asked)
    again = evaluator.post("/v1/rank", json=RANK).json()
    assert again["ranking"] == out["ranking"] and len(engine.asked) == asked


def test_a_sort_with_equals(evaluator: TestClient) -> None:
    promote(0)
    body = {"instruction": "i", "responses": ["w2", "w7", "w2 ", "w9"], "method": "sort"}
    out = evaluator.post("/v1/rank", json=body).json()
    assert [(one["response"], one["rank"]) for one in out["ranking"]] == [
        (3, 1), (1, 2), (0, 3), (2, 3),
    ]  # fmt: skip
    assert out["comparisons"] <= 5 and out["ranking"][0]["strength"] is None


def test_as_many_comparisons_as_are_asked_for(evaluator: TestClient) -> None:
    promote(0)
    responses = [f"w{number}" for number in range(12)]
    for asked, given in ((None, 48), (20, 20), (1, 12), (2016, 66)):
        body = {"instruction": "i", "responses": responses, "comparisons": asked}
        assert evaluator.post("/v1/rank", json=body).json()["comparisons"] == given


def test_a_judge_that_likes_the_first_place_ranks_nobody(
    evaluator: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(0)
    monkeypatch.setattr(engine, "_read", lambda request: "[[A]]")
    out = evaluator.post("/v1/rank", json=RANK).json()
    assert [(one["rank"], one["ties"]) for one in out["ranking"]] == [(1, 3)] * 4
    one_order = evaluator.post("/v1/rank", json={**RANK, "both_orders": False}).json()
    assert [one["response"] for one in one_order["ranking"]] == [0, 1, 2, 3]
    monkeypatch.setattr(engine, "_read", lambda request: "well")
    out = evaluator.post("/v1/rank", json={**RANK, "cache": False}).json()
    assert (out["unparsable"], {one["rank"] for one in out["ranking"]}) == (6, {1})


def in_background(evaluator: TestClient, body: dict[str, Any]) -> Future[httpx.Response]:
    return ThreadPoolExecutor(1).submit(evaluator.post, "/v1/rank", json=body)


def test_one_version_ranks_while_the_alias_moves(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.hold.clear()
    call = in_background(evaluator, {**RANK, "method": "sort"})
    assert engine.begun.acquire(timeout=30)
    promote(1)
    engine.hold.set()
    assert call.result(30).json()["model"] == "m:0"
    assert len(engine.asked) > 1 and {sampling.max_tokens for _, sampling in engine.asked} == {77}
    assert evaluator.post("/v1/rank", json=RANK).json()["model"] == "m:1"


def test_a_deadline_ends_all_comparisons(evaluator: TestClient, engine: Engine) -> None:
    promote(0)
    engine.hold.clear()
    try:
        answer = evaluator.post("/v1/rank", json={**RANK, "method": "sort", "timeout_seconds": 0.3})
        assert_problem(answer, 504, "deadline_exceeded")
        asked = len(engine.asked)
    finally:
        engine.hold.set()
    until(lambda: "in_flight 0.0" in evaluator.get("/metrics").text)
    assert len(engine.asked) == asked
    assert evaluator.post("/v1/rank", json=RANK).json()["comparisons"] == 6


def test_rankings_that_cannot_be_given(evaluator: TestClient, engine: Engine) -> None:
    assert_problem(evaluator.post("/v1/rank", json=RANK), 409, "no_model")
    promote(0)
    for change, field in (
        ({"responses": ["w1"]}, "responses"),
        ({"responses": ["w1"] * 65}, "responses"),
        ({"method": "guess"}, "method"),
        ({"comparisons": 0}, "comparisons"),
        ({"instruction": None}, "body"),
    ):
        answer = evaluator.post("/v1/rank", json={**RANK, **change})
        assert_problem(answer, 422, "invalid_request", field)
    answer = evaluator.post("/v1/rank", json={**RANK, "template": "score"})
    assert_problem(answer, 404, "unknown_template", "template")
    engine.finish = "rejected"
    for method in ("tournament", "sort"):
        answer = evaluator.post("/v1/rank", json={**RANK, "method": method})
        assert_problem(answer, 422, "too_long")
    engine.error = EngineUnavailable("down")
    assert_problem(evaluator.post("/v1/rank", json=RANK), 503, "engine_unavailable")


def test_through_the_gateway(
    evaluator: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.say = {0: ["9"]}
    with served(create_evaluator()) as url:
        monkeypatch.setattr(get_settings(), "evaluator_url", url)
        with TestClient(create_app(), "http://localhost") as gateway:
            named = {"Selftaught-Model": "m:1"}
            assert gateway.post("/v1/score", json=SCORE, headers=named).json()["model"] == "m:1"
            engine.say = {}
            out = gateway.post("/v1/rank", json=RANK, headers=named).json()
            assert (out["model"], out["ranking"][0]["response"]) == ("m:1", 1)
            assert_problem(gateway.post("/v1/rank", json=RANK), 409, "no_model")
