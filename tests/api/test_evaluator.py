"""The judge service with an engine that prefers whatever says "good"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from selftaught import aliases
from selftaught.contracts import SamplingSettings
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.inference import (
    Completion,
    EngineRefused,
    EngineUnavailable,
    ModelLoadError,
    Request,
)
from services.evaluator import judge as service
from services.evaluator.main import create_app
from tests.api.conftest import assert_problem
from tests.conftest import Servers

GOOD_FIRST = {"instruction": "i", "response_a": "good", "response_b": "bad"}


class Engine:
    """Finds the longer text of A or B; `say` overrides what it answers to request number n."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Request], SamplingSettings]] = []
        self.say: dict[int, list[str]] = {}
        self.finish = "stop"
        self.error: Exception | None = None

    def generate(self, requests: Sequence[Request], sampling: SamplingSettings) -> Any:
        self.asked.append((requests, sampling))
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
        shown = request.messages[-1]["content"]
        return "because\n[[A]]" if shown.index("good") < shown.index("bad") else "well\n[[B]]"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()
    monkeypatch.setattr(service, "open_version", lambda version, patience: found)
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
    with TestClient(create_app(), raise_server_exceptions=False) as found:
        yield found


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
    assert (out["model"], out["template"], out["tokens"]) == ("m:0", "mt-bench", 6)
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


def test_probes_and_metrics(evaluator: TestClient) -> None:
    promote(0)
    evaluator.post("/judge", json=GOOD_FIRST)
    assert evaluator.get("/healthz").status_code == 200
    assert evaluator.get("/readyz").json()["checks"] == {"postgres": "ok", "schema": "ok"}
    assert (
        'selftaught_verdicts_total{model="m:0",verdict="A"} 1.0' in evaluator.get("/metrics").text
    )
    assert_problem(evaluator.post("/judge", json={}), 422, "invalid_request", "instruction")
