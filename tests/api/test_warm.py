"""Versions are open before they are asked: what evaluators hear, and what a move waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from selftaught import tenancy
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion, Project
from selftaught.settings import get_settings
from selftaught.stack.state import free_port
from services.api import judge as gateway_judge
from services.api.main import create_app as create_gateway
from services.evaluator import opened
from services.evaluator.askers import Asker, Together
from services.evaluator.main import create_app
from tests.api.conftest import assert_problem
from tests.api.helpers import served as served_app
from tests.api.test_evaluator import Engine, until
from tests.api.traffic import ALIAS, World, move, world

__all__ = ["world"]


def test_both_replicas_open_what_comes_to_be_named(world: World) -> None:
    until(lambda: world.opened.count(0) == 2)
    move(1)
    until(lambda: world.opened.count(1) == 2)
    world.canary(version=2)
    until(lambda: world.opened.count(2) == 2)
    world.ask(0), world.ask(1)
    assert sorted(world.opened) == [0, 0, 1, 1, 2, 2]  # no call had to


def test_news_goes_on_after_its_connection_was_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "RETRY_SECONDS", 0.05)
    until(lambda: world.opened.count(0) == 2)
    ours = "FROM pg_stat_activity WHERE application_name = 'selftaught-news' "
    ours += "AND datname = current_database()"

    def count(of: str) -> int:
        with transaction() as session:
            return int(session.scalar(text(f"SELECT count({of}) {ours}")) or 0)

    until(lambda: count("*") == 2)  # both listen; one that is away would be missed
    assert count("pg_terminate_backend(pid)") == 2
    move(1)  # nobody listens, or somebody does already: either way it is opened
    until(lambda: world.opened.count(1) == 2)
    move(2)
    until(lambda: world.opened.count(2) == 2)


def test_news_of_a_version_that_cannot_be_opened_stops_nothing(world: World) -> None:
    world.broken.add(1)
    move(1)
    until(lambda: world.opened.count(1) >= 2)
    move(2)
    until(lambda: world.opened.count(2) == 2)


def test_prepare_opens_and_says_what_is_wrong(world: World) -> None:
    world.broken.add(3)
    replica = world.replicas[0]
    assert replica.post("/prepare", json={"version": "ver_2"}).json() == {"model": "m:2"}
    assert 2 in world.opened
    failed = replica.post("/prepare", json={"version": "ver_3"})
    assert "no weights" in assert_problem(failed, 500, "model_failed")["detail"]
    assert_problem(replica.post("/prepare", json={"version": "no"}), 404, "unknown_model")


@pytest.fixture
def served(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A gateway before one evaluator that really listens, and one that is not there."""
    nowhere = free_port(lambda port: False)
    with served_app(create_app()) as url:
        urls = f"http://127.0.0.1:{nowhere},{url}"
        monkeypatch.setattr(get_settings(), "evaluator_url", urls)
        with TestClient(
            create_gateway(), "http://localhost", raise_server_exceptions=False
        ) as found:
            yield found


def test_a_move_waits_for_the_evaluators_and_refuses_what_they_cannot_open(
    world: World, served: TestClient
) -> None:
    world.broken.add(3)
    refused = served.put(ALIAS, json={"version": 3})
    assert "no weights" in assert_problem(refused, 409, "version_unservable", "version")["detail"]
    tried = served.put(ALIAS + "/canary", json={"version": 3, "share": 0.5})
    assert_problem(tried, 409, "version_unservable", "version")
    assert served.get(ALIAS).json()["version"] == "m:0"
    assert_problem(served.get(ALIAS + "/canary"), 404, "canary_not_found")
    before = world.opened.count(2)
    assert served.put(ALIAS, json={"version": 2}).json()["version"] == "m:2"
    assert world.opened.count(2) > before
    assert_problem(served.put(ALIAS, json={"version": 7}), 404, "unknown_model")
    assert_problem(served.put(ALIAS.upper(), json={"version": 1}), 404, "not_found")
    forced = served.put(ALIAS, json={"version": 3, "prepare": False})
    assert forced.json()["version"] == "m:3"


def test_a_move_of_any_project_is_refused_what_cannot_be_opened(
    world: World, served: TestClient
) -> None:
    world.broken.add(9)
    with transaction() as session:
        session.add(Project(id="red"))
    lineage = {"template": {"name": "mt-bench"}, "inference": "local"}
    with tenancy.inside("red"), transaction() as session:
        version = ModelVersion(
            id="ver_9", model="m", number=9, path="x", sha256="x", lineage=lineage
        )
        session.add(version)
    body = {"name": "k", "scopes": ["promote"]}
    secret = served.post("/v1/projects/red/keys", json=body).json()["secret"]
    headers = {"authorization": f"Bearer {secret}"}
    refused = served.put("/v1/models/m/aliases/beta", json={"version": 9}, headers=headers)
    assert_problem(refused, 409, "version_unservable", "version")


def test_a_move_does_not_wait_forever(
    world: World, served: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_judge, "PREPARE_SECONDS", 0.2)
    release = threading.Event()
    real = world.open

    def slow(version: ModelVersion, patience: float) -> Engine:
        assert release.wait(30)
        return real(version, patience)

    monkeypatch.setattr("services.evaluator.judge.open_version", slow)
    try:
        assert served.put(ALIAS, json={"version": 1}).status_code == 200
    finally:
        release.set()


def test_a_move_goes_on_where_no_evaluator_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port(lambda port: False)
    monkeypatch.setattr(get_settings(), "evaluator_url", f"http://127.0.0.1:{port}")
    with TestClient(create_gateway(), "http://localhost") as lonely:
        assert lonely.put(ALIAS, json={"version": 1}).json()["version"] == "m:1"


def test_versions_that_are_named_make_room_last() -> None:
    async def test() -> None:
        loaded: list[str] = []

        async def load(version: ModelVersion) -> tuple[Engine, Asker]:
            loaded.append(version.id)
            return Engine(), Together(Engine())  # type: ignore[arg-type]

        models = opened.Opened(load)  # type: ignore[arg-type]
        models.named = frozenset({"a", "b"})
        for name in "abcdabeab":
            await models.get(ModelVersion(id=name))
        assert loaded == ["a", "b", "c", "d", "e"]
        models.named = frozenset("abe")
        await models.get(ModelVersion(id="f"))  # all are named: the one asked longest ago
        await models.get(ModelVersion(id="a"))
        assert loaded == ["a", "b", "c", "d", "e", "f"]

    asyncio.run(test())
