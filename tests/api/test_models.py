"""Versions and aliases: moving, refusing a stale move, history, rolling back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from selftaught import aliases
from selftaught.database import transaction
from selftaught.database.tables import Evaluation, ModelVersion
from tests.api.conftest import assert_problem
from tests.api.helpers import add_versions, post_job, upload

PRODUCTION = "/v1/models/m/aliases/production"  # goes where it is put; `latest` has a gate


def put(client: TestClient, version: int, alias: str = "production", **headers: str) -> Any:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return client.put(f"/v1/models/m/aliases/{alias}", json={"version": version}, headers=named)


def test_models_and_versions(client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"data": [], "has_more": False}
    add_versions("m", [0, 1, 2], latest=1)
    add_versions("n", [0])
    dataset = upload(client)
    maker, later = (post_job(client, dataset).json()["id"] for _ in range(2))
    with transaction() as session:
        one, two = aliases.get_version(session, "m", 1), aliases.get_version(session, "m", 2)
        two.parent_id, two.job_id = one.id, maker
        for job, set_, x in ((maker, "heldout", 1), (later, "heldout", 2), (later, "labelled", 3)):
            ev = f"ev_{x}"
            session.add(
                Evaluation(id=ev, version_id=two.id, job_id=job, set=set_, metrics={"x": x})
            )
            session.flush()
    models = client.get("/v1/models").json()["data"]
    assert models == [
        {"name": "m", "versions": 3, "aliases": {"latest": "m:1"}},
        {"name": "n", "versions": 1, "aliases": {}},
    ]
    assert client.get("/v1/models?limit=1").json()["has_more"]
    assert client.get("/v1/models?after=m").json()["data"] == models[1:]
    page = client.get("/v1/models/m/versions?limit=2").json()
    assert [v["ref"] for v in page["data"]] == ["m:2", "m:1"] and page["has_more"]
    assert page["data"][0]["parent"] == "m:1"
    # By the job that made it; by another one where that did not score it.
    assert page["data"][0]["metrics"] == {"heldout": {"x": 1}, "labelled": {"x": 3}}
    assert page["data"][1]["aliases"] == ["latest"]
    rest = client.get("/v1/models/m/versions?after=1").json()
    assert [v["number"] for v in rest["data"]] == [0] and not rest["has_more"]
    assert client.get("/v1/models/m/versions/2").json() == page["data"][0]
    assert_problem(client.get("/v1/models/m/versions/3"), 404, "unknown_model")
    assert_problem(client.get("/v1/models/o/versions"), 404, "model_not_found")
    assert_problem(client.get("/v1/models/o/aliases"), 404, "model_not_found")
    assert_problem(client.get("/v1/models/m/versions/99999999999"), 422, "invalid_request")


def test_if_match_stops_the_second_of_two_movers(client: TestClient) -> None:
    add_versions("m", [0, 1, 2])
    created = put(client, 0)
    assert created.status_code == 200 and created.headers["etag"] == '"1"'
    etag = client.get(PRODUCTION).headers["etag"]
    assert put(client, 1, if_match=etag).headers["etag"] == '"2"'
    stale = put(client, 2, if_match=etag)
    assert_problem(stale, 412, "revision_mismatch")
    assert stale.headers["etag"] == '"2"'
    assert client.get(PRODUCTION).json()["version"] == "m:1"
    assert_problem(put(client, 2, if_match="latest"), 422, "invalid_request", "If-Match")
    assert_problem(put(client, 2, alias="new", if_match='"1"'), 412, "revision_mismatch")
    assert put(client, 2, alias="new", if_none_match="*").status_code == 200
    assert_problem(put(client, 1, alias="new", if_none_match="*"), 412, "revision_mismatch")


def test_history_and_rollback(client: TestClient) -> None:
    add_versions("m", [1, 2, 3])
    for number in (1, 2, 2, 3):
        put(client, number)
    undo = PRODUCTION + "/rollback"
    assert_problem(client.post(undo, headers={"if-match": '"1"'}), 412, "revision_mismatch")
    once = client.post(undo)
    assert once.json()["version"] == "m:2" and once.headers["etag"] == '"4"'
    assert client.post(undo).json()["version"] == "m:1"  # not forward to 3 again
    body = assert_problem(client.post(undo), 409, "nothing_to_roll_back_to")
    assert body["detail"] == (
        "m:1 was the first version of m:production, and every later move is undone; to name "
        "another version promote it"
    )
    out = client.get(PRODUCTION).json()
    assert out["revision"] == 5
    moves = [(m["revision"], m["version"], m["reason"]) for m in out["history"]]
    assert moves == [
        (5, "m:1", "rollback"),
        (4, "m:2", "rollback"),
        (3, "m:3", "manual"),
        (2, "m:2", "manual"),
        (1, "m:1", "manual"),
    ]
    assert client.get("/v1/models/m/aliases").json()["data"] == [out]


@pytest.mark.parametrize("alias", ["7", "Upper", "a b", "x" * 65, "-a"])
def test_names_that_no_alias_can_have(client: TestClient, alias: str) -> None:
    add_versions("m", [1])
    assert_problem(put(client, 1, alias=alias), 422, "invalid_alias")


def test_aliases_that_are_not_there(client: TestClient) -> None:
    add_versions("m", [1])
    assert_problem(client.get(PRODUCTION), 404, "alias_not_found")
    assert_problem(client.post(PRODUCTION + "/rollback"), 404, "unknown_model")
    body = assert_problem(put(client, 5), 404, "unknown_model")
    assert "m:1" in body["detail"]
    nul = client.put(PRODUCTION, json={"version": 1, "reason": "a\0b"})
    assert_problem(nul, 422, "invalid_request")
    assert_problem(client.put(PRODUCTION, json={"version": -1}), 422, "invalid_request", "version")
    huge = client.put(PRODUCTION, json={"version": 10**30})
    assert huge.status_code in (404, 422)


def test_racing_movers_each_leave_a_revision(client: TestClient) -> None:
    add_versions("m", list(range(8)))
    answers: list[int] = []
    movers = [
        threading.Thread(target=lambda n=n: answers.append(put(client, n).status_code))
        for n in range(8)
    ]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join()
    assert answers == [200] * 8
    out = client.get(PRODUCTION).json()
    assert [m["revision"] for m in out["history"]] == list(range(8, 0, -1))
    assert out["version"] == out["history"][0]["version"]


def test_resolve(client: TestClient) -> None:
    def found(ref: str | None) -> str:
        with transaction() as session:
            return aliases.resolve(session, ref).ref

    with pytest.raises(aliases.NothingPromoted):
        found(None)
    add_versions("m", [1, 2])
    with pytest.raises(aliases.NothingPromoted):
        found("m")
    with transaction() as session:
        aliases.move(session, "m", "latest", 1, "gate")
        aliases.move(session, "m", "next", 2, "manual")
    assert [found(ref) for ref in (None, "m", "m:latest", "m:next", "m:2")] == [
        "m:1",
        "m:1",
        "m:1",
        "m:2",
        "m:2",
    ]
    for ref in ("o", "m:3", "m:none", "", ":", "m:", "m:²", "a\0b", "x" * 5000):
        with pytest.raises(aliases.UnknownModel) as caught:
            found(ref)
        assert caught.value.known
    add_versions("n", [5], latest=5)
    with pytest.raises(aliases.AmbiguousModel) as several:
        found(None)
    assert several.value.candidates == ["m", "n"]


def test_the_gate_moves_with_a_row(client: TestClient) -> None:
    add_versions("m", [1])
    with transaction() as session:
        version = session.scalars(ModelVersion.__table__.select()).first()
        row = aliases.get_version(session, "m", 1)
        assert version == row.id
        assert aliases.move(session, "m", "latest", row, "gate", expected_revision=0).revision == 1
