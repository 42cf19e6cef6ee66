"""The log of verdicts: what it keeps, of how many, for how long, and that no call waits for it."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError

from selftaught.database import transaction
from selftaught.database.tables import LoggedVerdict
from selftaught.settings import get_settings
from services.evaluator import recorder, traffic
from services.evaluator.recorder import Recorder, sweep
from tests.api.conftest import assert_problem
from tests.api.test_evaluator import until
from tests.api.traffic import World, logged, question, world

__all__ = ["world"]


@pytest.fixture
def kept(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose log keeps hashes."""
    monkeypatch.setattr(get_settings(), "verdict_log", "hashes")
    return world


def test_it_is_off_unless_asked_for(world: World) -> None:
    out = world.ask()
    assert out["id"].startswith("vdt_")
    world.replicas[0].__exit__(None, None, None)  # which writes what waits
    assert logged() == []
    world.replicas[0].__enter__()
    assert_problem(world.gateway.get(f"/v1/verdicts/{out['id']}"), 404, "verdict_not_found")


def test_a_verdict_is_traced_to_version_template_and_job(kept: World) -> None:
    answer = kept.replicas[0].post("/judge", json=question(explain=True, votes=2))
    out = answer.json()
    until(lambda: len(logged()) == 1)
    found = kept.gateway.get(f"/v1/verdicts/{out['id']}").json()
    shared = {name: out[name] for name in out if name in found and name not in ("canary", "orders")}
    assert {name: found[name] for name in shared} == shared
    assert found["request_id"] == answer.headers["x-request-id"]
    assert (found["alias"], found["canary"], found["votes"]) == ("m:latest", None, 2)
    assert [one["reasoning"] for one in found["orders"]] == [None, None]
    assert found["texts"] is None and len(found["content_sha256"]) == 64
    assert found["version"]["ref"] == out["model"] == "m:0"
    assert found["version"]["lineage"]["template"]["name"] == out["template"]
    assert out["orders"][0]["reasoning"] is not None
    exact = kept.ask(model="m:0")
    canary = kept.canary()
    tried = kept.ask(instruction="j")
    until(lambda: len(logged()) == 3)
    for one, alias, by in ((exact, None, None), (tried, "m:latest", canary["id"])):
        row = kept.gateway.get(f"/v1/verdicts/{one['id']}").json()
        assert (row["alias"], row["canary"], row["model"]) == (alias, by, one["model"])


def test_texts_are_kept_only_if_wanted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "verdict_log", "texts")
    out = world.ask(rubric="no\0ne")  # a character that Postgres cannot hold
    assert [one["reasoning"] for one in out["orders"]] == [None, None]  # not asked to explain
    told = world.ask(explain=True)
    assert told["orders"][0]["reasoning"] == "because\n[[A]]"
    until(lambda: len(logged()) == 2)
    assert logged()[0].texts == {
        "instruction": "i", "response_a": "good", "response_b": "bad", "rubric": "no\ufffdne",
        "both_orders": True, "allow_tie": True, "votes": 1,
        "reasoning": {"AB": "because\n[[A]]", "BA": "well\n[[B]]"},
    }  # fmt: skip


def test_a_share_of_the_answers_is_kept(kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "verdict_log_sample", 0.5)
    outs = [kept.ask() for _ in range(30)]
    wanted = sorted(one["id"] for one in outs if traffic.portion("log", one["id"]) < 0.5)
    until(lambda: len(logged()) == len(wanted))
    assert [row.id for row in logged()] == wanted
    monkeypatch.setattr(get_settings(), "verdict_log_sample", 0.0)
    kept.ask()
    kept.replicas[0].__exit__(None, None, None)
    assert len(logged()) == len(wanted)
    kept.replicas[0].__enter__()


def test_old_verdicts_are_deleted(kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "BATCH", 2)
    outs = [kept.ask() for _ in range(7)]
    until(lambda: len(logged()) == 7)
    old = dt.datetime.now(dt.UTC) - dt.timedelta(days=30, minutes=1)
    with transaction() as session:
        ids = [one["id"] for one in outs[:5]]
        session.execute(
            update(LoggedVerdict).where(LoggedVerdict.id.in_(ids)).values(created_at=old)
        )
    assert sweep() == 5 and len(logged()) == 2
    assert sweep() == 0
    monkeypatch.setattr(get_settings(), "verdict_log_days", 1e-9)
    monkeypatch.setattr(recorder, "SWEEP_SECONDS", 0.0)
    until(lambda: not logged())  # the evaluators do it by themselves


def test_pages_and_filters(kept: World) -> None:
    outs = [kept.ask(model=f"m:{n % 2}", instruction=f"{n}") for n in range(6)]
    kept.engines[0].say = {0: ["[[A]]"], 1: ["[[A]]"]}
    outs.append(kept.ask(model="m:0", instruction="tie"))
    until(lambda: len(logged()) == 7)
    newest = [one["id"] for one in outs][::-1]

    def ids(**where: Any) -> list[str]:
        answer = kept.gateway.get("/v1/verdicts", params=where)
        assert answer.status_code == 200, answer.text
        return [one["id"] for one in answer.json()["data"]]

    assert sorted(ids()) == sorted(newest)
    assert ids(limit=3) + ids(limit=10, after=ids(limit=3)[-1]) == ids()
    assert set(ids(model="m", version=1)) == {outs[n]["id"] for n in (1, 3, 5)}
    assert ids(verdict="tie") == [outs[6]["id"]] and ids(model="other") == []
    row = kept.gateway.get(f"/v1/verdicts/{outs[6]['id']}").json()
    assert ids(content_sha256=row["content_sha256"]) == [outs[6]["id"]]
    assert ids(request_id=row["request_id"]) == [outs[6]["id"]]
    assert outs[6]["id"] in ids(**{"from": row["created_at"]})
    assert outs[6]["id"] not in ids(to=row["created_at"])
    for wrong in ({"from": "2026-01-01T00:00:00"}, {"verdict": "C"}, {"version": -1}):
        answer = kept.gateway.get("/v1/verdicts", params=wrong)
        assert_problem(answer, 422, "invalid_request", next(iter(wrong)))


def test_a_round_that_fails_is_not_the_last(kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def fails() -> int:
        failed.append(1)
        raise ValueError("as no one thought of")

    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(recorder, "SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "sweep", fails)
    until(lambda: len(failed) > 2)
    kept.ask()
    until(lambda: len(logged()) == 1)


def test_what_does_not_fit_is_dropped_and_counted(
    kept: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "ROOM", 0)
    assert kept.ask()["verdict"] == "A"
    assert "selftaught_verdict_rows_dropped_total 1.0" in kept.replicas[0].get("/metrics").text


def test_rows_wait_while_postgres_is_away_and_are_written_at_the_end(kept: World) -> None:
    real = recorder._write
    tried: list[int] = []

    def fail(rows: list[Any]) -> None:
        tried.append(len(rows))
        raise OperationalError("insert", None, Exception("gone"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "RETRY_SECONDS", 0.02)
        patch.setattr(recorder, "_write", fail)
        kept.ask()
        until(lambda: len(tried) > 1)
        assert logged() == []
    until(lambda: len(logged()) == 1)

    async def close_with_rows() -> tuple[float, float]:
        writer = Recorder()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recorder, "_write", fail)
            writer.put(LoggedVerdict, {})
            await writer.close()
            lost = writer.dropped._value.get()
        patch.setattr(recorder, "_write", real)
        other = Recorder()
        other.put(LoggedVerdict, {"id": "wrong"})  # not a whole row: dropped, the rest goes on
        await other.flush()
        return lost, other.dropped._value.get()

    assert asyncio.run(close_with_rows()) == (1, 1)


def test_a_lost_connection_loses_no_row(kept: World) -> None:
    kept.ask()
    until(lambda: len(logged()) == 1)
    with transaction() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    for number in range(5):
        kept.ask(instruction=f"{number}")
    until(lambda: len(logged()) == 6)
