"""What is wanted of nodes, and what they offer, on a real Postgres."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from selftaught import devices, engines
from selftaught.contracts import Recipe
from selftaught.database import transaction
from selftaught.database.tables import EngineAdapter, EngineDemand, EngineServer, ModelVersion
from services.engine.health import works


def recipe(**settings: Any) -> Recipe:
    return Recipe.model_validate({"inference": "vllm", **settings})


def version(id_: str, path: str = "", **settings: Any) -> ModelVersion:
    return ModelVersion(
        id=id_,
        model="m",
        number=int(id_[1:]),
        path=path,
        sha256="",
        lineage={"engine": engines.lineage(recipe(**settings))},
    )


@pytest.mark.parametrize(
    ("train", "rank"),
    [
        ({"method": "full"}, 0),
        ({"method": "lora", "lora": {"rank": 1}}, 8),
        ({"method": "lora", "lora": {"rank": 16}}, 16),
        ({"method": "lora", "lora": {"rank": 17}}, 32),
        ({"method": "lora", "lora": {"rank": 512}}, 512),
    ],
)
def test_a_server_takes_the_adapters_that_the_recipe_trains(train: Any, rank: int) -> None:
    assert engines.lineage(recipe(train=train))["max_lora_rank"] == rank


def test_an_adapter_is_served_by_its_bases_server(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "v1"
    base.mkdir()
    adapter.mkdir()
    config = {"base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    lora = {"train": {"method": "lora"}}
    seed = engines.target(version("v0", str(base), **lora), base)
    trained = engines.target(version("v1", "v1", **lora), adapter)
    assert seed.spec.key == trained.spec.key
    assert (seed.model, seed.adapter) == ("base", None)
    assert (trained.model, trained.adapter) == ("v1", "v1")
    other = engines.target(version("v2", str(base), engine={"tensor_parallel": 2}, **lora), base)
    assert other.spec.key != seed.spec.key


def test_nodes_with_homes_of_their_own_ask_for_the_same_server(tmp_path: Path) -> None:
    """Of trained weights, wherever each has them."""
    row = version("v3", "v3", train={"method": "full"})
    here, there = (engines.target(row, tmp_path / home) for home in ("a", "b"))
    assert here.spec.key == there.spec.key and here.spec.name == "v3"


@pytest.fixture
def target(database: object, tmp_path: Path) -> engines.Target:
    """A trained version that is in the database."""
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base")})
    )
    row = version("v1", "v1", train={"method": "lora"})
    with transaction() as session:
        session.add(row)
    return engines.target(row, tmp_path)


def serve(target: engines.Target, node: str, state: str, adapter: str | None) -> None:
    problem = {"code": "engine_crashed", "title": "It crashed", "detail": node}
    with transaction() as session:
        session.add(
            EngineServer(
                id=f"srv-{node}",
                node=node,
                key=target.spec.key,
                spec=target.spec.model_dump(),
                state=state,
                url=f"http://{node}/v1",
                kv_tokens=1000,
                error=problem if state == "failed" else None,
            )
        )
        session.flush()
        if adapter is not None:
            session.add(
                EngineAdapter(
                    server_id=f"srv-{node}",
                    version_id=target.version_id,
                    state=adapter,
                    error=problem if adapter == "failed" else None,
                )
            )


def test_a_server_answers_once_it_and_the_adapter_are_ready(target: engines.Target) -> None:
    serve(target, "a", "starting", None)
    serve(target, "b", "ready", None)
    serve(target, "c", "ready", "loading")
    serve(target, "d", "ready", "ready")
    serve(target, "e", "draining", "ready")
    found = engines.look(target)
    assert [one.url for one in found.servers] == ["http://d/v1"]
    assert found.failed is None


@pytest.mark.parametrize(
    ("second", "failed"),
    [(("failed", None), True), (("ready", "failed"), True), (("starting", None), False)],
)
def test_it_has_failed_when_every_node_gave_up(
    target: engines.Target, second: tuple[str, str | None], failed: bool
) -> None:
    assert engines.look(target).failed is None  # nobody has tried yet
    serve(target, "a", "failed", None)
    serve(target, "b", *second)
    problem = engines.look(target).failed
    assert (problem is not None) == failed
    if problem is not None:
        assert problem.code == "engine_crashed"


def test_a_silent_node_counts_as_gone(target: engines.Target) -> None:
    devices.register("a", ["0"])
    serve(target, "a", "ready", "ready")
    assert (len(engines.look(target).servers), engines.look(target).nodes) == (1, 1)
    with transaction() as session:
        for table in ("devices", "engine_servers"):
            session.execute(text(f"UPDATE {table} SET seen_at = now() - interval '1 minute'"))
    assert (engines.look(target).servers, engines.look(target).nodes) == ((), 0)


def test_a_node_is_healthy_while_its_engine_process_says_that_it_lives(database: object) -> None:
    assert not works("a")
    devices.register("a", ["0"])
    devices.register("b", ["0"])
    assert works("a")
    with transaction() as session:
        session.execute(text("UPDATE devices SET seen_at = now() - interval '1 minute'"))
    devices.seen("b")
    assert (works("a"), works("b")) == (False, True)


def test_who_asks_says_so_for_a_while(target: engines.Target) -> None:
    for job in ("", "job_1", "job_1"):
        engines.want(target, job)
    with transaction() as session:
        rows = session.query(EngineDemand).order_by(EngineDemand.job_id).all()
    assert [row.job_id for row in rows] == ["", "job_1"]
    assert engines.Spec.model_validate(rows[0].spec) == target.spec
    assert rows[0].adapter == "v1"
    engines.unwant("job_1")
    with transaction() as session:
        assert [row.job_id for row in session.query(EngineDemand)] == [""]
