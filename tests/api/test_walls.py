"""Every route, with two tenants and with each scope: no read, write or hint goes from one to the
other, and a key does what its scopes say and nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from selftaught import keys, tenancy
from selftaught.contracts import SamplingSettings, Scope
from selftaught.database import transaction
from selftaught.inference import Completion, Request
from selftaught.settings import get_settings
from services.api import access, chat
from services.api.main import RESOURCES, create_app
from services.evaluator import judge as service
from services.evaluator.main import create_app as create_evaluator
from tests.api.conftest import assert_error, assert_problem
from tests.api.helpers import served
from tests.api.tenants import MARK, Tenant, make, names, rows_of
from tests.api.walls import ASKS, Ask
from tests.conftest import Servers, fresh

ALL = frozenset(keys.SCOPES)
COMBINATIONS = (
    ALL,
    *(frozenset({one}) for one in keys.SCOPES),
    *(ALL - {one} for one in keys.SCOPES),
)
ROUTES = sorted(
    f"{method} {route.path_format}"
    for resource in RESOURCES
    for route in resource.router.routes
    if isinstance(route, APIRoute)
    for method in route.methods
)


class Engine:
    """Prefers A, and says by which version: in its reasoning, and by `asked`."""

    def __init__(self, version: str) -> None:
        self.version, self.asked = version, 0

    def generate(self, requests: Sequence[Request], sampling: SamplingSettings) -> Any:
        self.asked += len(requests)
        said = f"{self.version} says 7\n[[A]]"
        return [[Completion(said, "stop", 1, 1)] * one.n for one in requests]

    def close(self) -> None: ...


@dataclass
class House:
    """A closed gateway, a real evaluator behind it, and two tenants."""

    gateway: TestClient
    evaluator: str
    red: Tenant
    blue: Tenant
    nobody: dict[str, str]
    """Names like those of `red`, of things that never were."""
    engines: dict[str, Engine]

    def ask(self, route: str, ask: Ask, of: dict[str, str], headers: dict[str, str]) -> Any:
        sent = ask.filled(of)
        sent["headers"] = {"x-request-id": "walls", **sent["headers"], **headers}
        return self.gateway.request(route.split()[0], **sent)


@pytest.fixture(scope="module")
def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        home = tmp_path_factory.mktemp("house")
        stack.enter_context(fresh(servers, home, patch))
        patch.delenv("SELFTAUGHT_OPEN")
        red = make("red", "red", MARK, 70707, COMBINATIONS)
        blue = make("blue", "blu", "azuring", 60606, COMBINATIONS)
        engines: dict[str, Engine] = {}
        patch.setattr(
            service,
            "open_version",
            lambda version, patience: engines.setdefault(version.id, Engine(version.id)),
        )
        evaluator = stack.enter_context(served(create_evaluator()))
        patch.setenv("EVALUATOR_URL", evaluator)
        get_settings.cache_clear()
        gateway = TestClient(create_app(), "http://judge.example", raise_server_exceptions=False)
        stack.enter_context(gateway)
        nobody = names("rod", "crimsom", 80808)
        yield House(gateway, evaluator, red, blue, nobody, engines)


def needed(route: str) -> Scope | None:
    """The scope that a route asks for; None: any."""
    rule = access.RULES[route]
    if rule == "any":
        return None
    return "admin" if rule == "operator" else rule


def told(answer: httpx.Response) -> dict[str, Any]:
    """All of an answer that its asker can see, but for the time."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return {"status": answer.status_code, "headers": headers, "text": answer.text}


def as_of_red(text: str, house: House) -> str:
    """An answer about nobody's things, as it would be about red's."""
    for name in sorted(house.nobody, key=lambda one: -len(house.nobody[one])):
        text = text.replace(house.nobody[name], house.red.own[name])
    return text


def shape(answer: httpx.Response) -> tuple[int, list[str]]:
    body = answer.json()
    return answer.status_code, sorted(body)


def test_every_route_is_asked() -> None:
    lacking = [route for route in ROUTES if not ASKS.get(route)]
    assert not lacking, (
        f"add what a tenant can ask them about another's to tests/api/walls.py: {lacking}"
    )
    assert ASKS.keys() == set(ROUTES) == access.RULES.keys()


def test_the_tenants_have_one_of_everything(house: House) -> None:
    """So that a route that answers nothing about red does so because it is blue's to ask."""
    empty = [
        table
        for table, found in rows_of("red").items()
        if found == "d41d8cd98f00b204e9800998ecf8427e"
    ]
    assert set(empty) <= PLATFORM, f"give the tenants of tests/api/tenants.py some rows of {empty}"
    for route in ROUTES:
        if route.startswith("GET") and access.RULES[route] != "operator":
            found = [
                house.ask(route, ask, house.red.own, house.red.headers(*ALL)) for ask in ASKS[route]
            ]
            assert any(one.status_code == 200 for one in found) or route in REFUSED, route


def refused(route: str, answer: httpx.Response, status: int, code: str) -> str:
    """It is refused for this reason, as the route tells one; returns what people read."""
    if route.split()[1].startswith(chat.PATHS):
        return assert_error(answer, status, {403: code, 401: "invalid_api_key"}[status])
    return str(assert_problem(answer, status, code)["detail"])


PLATFORM = {"devices", "engine_adapters", "engine_demands", "engine_servers", "totals"}
FILES = "GET /v1/models/{name}/versions/{number}/files"
REFUSED = {
    "GET /v1/recipes/{name}",
    "GET /v1/evaluations/{evaluation_id}/compare/{other_id}",
    FILES,
    f"{FILES}/{{file}}",
}
"""A recipe of a tenant's own there is not, two evaluations are compared by their files, and these
versions have no weights (tests/api/test_files.py)."""


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_anothers_is_not_there(house: House, route: str) -> None:
    """Asked about red's, blue is told what it is told about things that never were; and neither a
    row of red's changes nor a word of it comes out. With all scopes, and with the rule's alone."""
    rule = access.RULES[route]
    before = rows_of("red")
    for scopes in (ALL, frozenset({needed(route) or "judge"})):
        headers = house.blue.headers(*scopes)
        for ask in ASKS[route]:
            never = house.ask(route, ask, house.nobody, headers)
            other = house.ask(route, ask, house.red.own, headers)
            about = f"{route} {ask}\n{never.text[:500]}\n{other.text[:500]}"
            assert never.status_code < 500 and never.status_code != 401, about
            assert MARK not in never.text + str(never.headers), about
            assert not [
                one for one in house.red.own.values() if len(one) > 5 and one in never.text
            ], about
            if rule == "operator":
                assert_problem(other, 403, "operator_only")
            if ask.makes:
                assert shape(never) == shape(other), about
                continue
            expected = {name: as_of_red(str(value), house) for name, value in told(never).items()}
            assert {name: str(value) for name, value in told(other).items()} == expected, about
    assert rows_of("red") == before


@pytest.mark.parametrize("route", ROUTES)
def test_a_scope_lets_in_where_the_rule_says_so(house: House, route: str) -> None:
    """Every other scope, and all others together, are refused before anything is looked up."""
    scope = needed(route)
    before = rows_of(None)
    for scopes in COMBINATIONS:
        if scope is None or scope in scopes:
            continue
        for of in (house.blue.own, house.red.own):
            answer = house.ask(route, ASKS[route][0], of, house.blue.headers(*scopes))
            assert repr(scope) in refused(route, answer, 403, "missing_scope")
    assert rows_of(None) == before


@pytest.mark.parametrize("route", ROUTES)
def test_nobody_comes_in_without_a_good_key(house: House, route: str, bad_keys: list[str]) -> None:
    before = rows_of(None)
    ask = ASKS[route][0]
    refused(route, house.ask(route, ask, house.red.own, {}), 401, "key_required")
    for secret in bad_keys:
        answer = house.ask(route, ask, house.red.own, {"authorization": f"Bearer {secret}"})
        refused(route, answer, 401, "invalid_key")
    assert rows_of(None) == before


@pytest.fixture(scope="module")
def bad_keys(house: House) -> list[str]:
    """Of red, with all scopes: expired, revoked, and rotated away."""
    with tenancy.inside("red"), transaction() as session:
        made = {}
        for name in ("expired", "revoked", "rotated"):
            made[name] = keys.create(session, name, keys.SCOPES)
        key = made["expired"][0]
        key.expires_at = key.created_at
        keys.revoke(session, "revoked")
        keys.rotate(session, made["rotated"][0].id, dt.timedelta(0))
    return ["st_unknown", *(secret for _, secret in made.values())]
