"""One evaluator answers two tenants whose models, templates and questions have the same names: they
share its process and none of its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from selftaught import tenancy
from selftaught.contracts import SamplingSettings
from selftaught.inference import Completion, Request
from selftaught.settings import get_settings
from services.api.main import create_app
from services.evaluator import judge as service
from services.evaluator.main import create_app as create_evaluator
from tests.api.conftest import assert_problem
from tests.api.helpers import served
from tests.api.tenants import Tenant, make
from tests.conftest import Servers, fresh

ALL = ("admin", "judge", "promote", "read", "write")
QUESTION = {"instruction": "i", "response_a": "a", "response_b": "b", "explain": True}


class Engine:
    """Says by which version it answers, and what it was shown."""

    def __init__(self, version: str) -> None:
        self.version = version

    def generate(self, requests: Sequence[Request], sampling: SamplingSettings) -> Any:
        return [
            [Completion(self._say(one), "stop", 1, 1)] * one.n  # [[A]] or a score, as it is read
            for one in requests
        ]

    def _say(self, request: Request) -> str:
        return f"{self.version} saw {request.messages[-1]['content'][:40]!r}\nScore: 7\n[[A]]"

    def close(self) -> None: ...


@dataclass
class Pair:
    gateway: TestClient
    evaluator: str
    red: Tenant
    blue: Tenant

    def call(self, tenant: Tenant, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = self.gateway.request(
            method, path, json=body, headers={**headers, **tenant.headers(*ALL)}
        )
        assert answer.status_code < 300, answer.text
        return answer.json()

    def judged(self, tenant: Tenant, path: str = "/judge", **change: Any) -> dict[str, Any]:
        return dict(self.call(tenant, "POST", path, {**QUESTION, "model": "tour", **change}))


@pytest.fixture
def pair(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    with ExitStack() as stack:
        home = tmp_path_factory.mktemp("pair")
        stack.enter_context(fresh(servers, home, monkeypatch))
        monkeypatch.setenv("SELFTAUGHT_VERDICT_LOG", "texts")
        monkeypatch.setattr("services.evaluator.recorder.FLUSH_SECONDS", 0.02)
        get_settings.cache_clear()
        red = make("red", "red", "crimson", 70707, [ALL])
        blue = make("blue", "blu", "azuring", 60606, [ALL])
        monkeypatch.setattr(service, "open_version", lambda row, patience: Engine(row.id))
        evaluator = stack.enter_context(served(create_evaluator()))
        monkeypatch.setenv("EVALUATOR_URL", evaluator)
        get_settings.cache_clear()
        gateway = TestClient(create_app(), "http://judge.example", raise_server_exceptions=False)
        yield Pair(stack.enter_context(gateway), evaluator, red, blue)


def said(answer: dict[str, Any]) -> str:
    return str(answer["orders"][0]["reasoning"])


def test_an_answer_is_remembered_for_its_own_tenant(pair: Pair) -> None:
    for tenant, other in ((pair.red, "blue"), (pair.blue, "red")):
        first, again = pair.judged(tenant), pair.judged(tenant)
        assert (first["cached"], again["cached"]) == (False, True)
        for answer in (first, again):
            assert f"ver_{tenant.project}_tour_1" in said(answer) and other not in said(answer)


def test_equal_questions_in_flight_are_not_shared(pair: Pair) -> None:
    """Nor is the look at the alias that they wait for."""
    asked = [(tenant, votes) for votes in (1, 3) for tenant in (pair.red, pair.blue) * 6]
    with ThreadPoolExecutor(12) as pool:
        answers = pool.map(lambda one: pair.judged(one[0], votes=one[1], cache=False), asked)
        for (tenant, _), answer in zip(asked, answers, strict=True):
            assert f"ver_{tenant.project}_" in said(answer)


def test_an_alias_moves_for_its_own_tenant(pair: Pair) -> None:
    assert "tour_1" in said(pair.judged(pair.red)) and "tour_1" in said(pair.judged(pair.blue))
    pair.call(pair.red, "POST", "/v1/models/tour/aliases/latest/rollback")
    assert "ver_red_tour_0" in said(pair.judged(pair.red))
    assert "ver_blue_tour_1" in said(pair.judged(pair.blue))
    canary = {"version": 1, "mode": "share", "share": 1, "prepare": False}
    pair.call(pair.red, "PUT", "/v1/models/tour/aliases/latest/canary", canary)
    assert pair.judged(pair.red)["canary"] and not pair.judged(pair.blue)["canary"]


def test_a_template_is_its_own_tenants(pair: Pair) -> None:
    for kind, path, user in (
        ("judge", "/judge", "{instruction} {response_a} {response_b}"),
        ("score", "/v1/score", "{instruction} {response}"),
    ):
        for tenant in (pair.red, pair.blue):
            verdicts = {"verdicts": {"A": "[[A]]", "B": "[[B]]"}} if kind == "judge" else {}
            body = {"name": f"our-{kind}", "kind": kind, "user": f"{tenant.word} {user}"}
            pair.call(tenant, "POST", "/v1/templates", {**body, **verdicts})
        for tenant in (pair.red, pair.blue, pair.red):
            shared = {"instruction": "i", "explain": True, "model": "tour"}
            own = {"response_a": "a", "response_b": "b"} if kind == "judge" else {"response": "a"}
            body = {**shared, **own, "template": f"our-{kind}"}
            answer = json.dumps(pair.call(tenant, "POST", path, body))
            assert f"{tenant.word} i" in answer, answer


def test_a_stream_and_a_ranking_are_by_ones_own_version(pair: Pair) -> None:
    for tenant, other in ((pair.red, "blue"), (pair.blue, "red")):
        headers = tenant.headers(*ALL)
        body = {**QUESTION, "model": "tour", "stream": True}
        stream = pair.gateway.post("/judge", json=body, headers=headers)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert f"ver_{tenant.project}_tour_1" in stream.text and f"ver_{other}" not in stream.text
        ranking = pair.call(
            tenant,
            "POST",
            "/v1/rank",
            {"instruction": "i", "responses": ["a", "b"], "model": "tour"},
        )
        assert ranking["model"] == "tour:1"


def test_the_log_of_verdicts_is_its_own_tenants(pair: Pair) -> None:
    for tenant in (pair.red, pair.blue):
        asked = pair.judged(tenant, instruction=f"{tenant.word} asks", cache=False)
        for _ in range(200):
            logged = pair.call(tenant, "GET", "/v1/verdicts")["data"]
            if len(logged) == 2:  # and the one of tests/api/tenants.py
                break
        assert {asked["id"], tenant.own["verdict"]} == {one["id"] for one in logged}
        assert logged[0]["texts"]["instruction"] == f"{tenant.word} asks"


def test_whose_a_question_is_the_gateway_says_and_not_the_caller(pair: Pair) -> None:
    body = {**QUESTION, "model": "tour"}
    answer = pair.call(pair.blue, "POST", "/judge", body, **{tenancy.HEADER: "red"})
    assert "ver_blue_tour_1" in said(answer)
    direct = httpx.post(f"{pair.evaluator}/judge", json=body, headers={tenancy.HEADER: "red"})
    assert "ver_red_tour_1" in said(direct.json())  # which is why an evaluator is not for clients
    assert_problem(httpx.post(f"{pair.evaluator}/judge", json=body), 404, "unknown_model")


def test_a_version_is_prepared_for_its_own_tenant(pair: Pair) -> None:
    """Also one that the evaluator has open already."""
    body = {"version": "ver_red_tour_1"}
    for project, status in (("red", 200), ("blue", 404), ("red", 200)):
        headers = {tenancy.HEADER: project}
        answer = httpx.post(f"{pair.evaluator}/prepare", json=body, headers=headers)
        assert answer.status_code == status, answer.text
