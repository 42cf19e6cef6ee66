"""The audit log: a row for whatever changes something, and nothing in it that was sent."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from selftaught import audit, tenancy
from selftaught.cli import app
from selftaught.database import transaction
from services.api import around
from tests.api.conftest import assert_problem
from tests.api.helpers import upload
from tests.api.test_access import as_key, make_key
from tests.api.test_openapi import ask, broken_request, example_request, operations


def rows(client: TestClient, **params: Any) -> list[dict[str, Any]]:
    answer = client.get("/v1/audit", params={"limit": 100, **params})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_who_did_what(client: TestClient) -> None:
    key = make_key(client, "ada", "read", "write")
    headers = as_key(client, key["secret"])
    dataset = upload(client)
    job = client.post(
        "/v1/jobs?x=secret-query",
        json={"dataset": dataset, "recipe": {"name": "r", "validate": {"instructions": 2}}},
        headers={**headers, "x-request-id": "mine"},
    )
    client.post(f"/v1/jobs/{job.json()['id']}/cancel", headers=headers)
    assert_problem(client.delete(f"/v1/keys/{key['id']}", headers=headers), 403, "missing_scope")
    client.post("/v1/jobs", content="{", headers={"content-type": "application/json"})
    client.post("/judge", json={"instruction": "i", "response_a": "a", "response_b": "b"})
    client.get("/v1/jobs", headers={"authorization": "Bearer st_no"})
    found = [(one["method"], one["path"], one["status"]) for one in reversed(rows(client))]
    assert found == [
        ("POST", "/v1/keys", 201),
        ("POST", "/v1/datasets", 201),
        ("POST", "/v1/jobs", 201),
        ("POST", f"/v1/jobs/{job.json()['id']}/cancel", 202),
        ("DELETE", f"/v1/keys/{key['id']}", 403),
    ]
    (row,) = rows(client, request_id="mine")
    assert (row["key_id"], row["key_name"]) == (key["id"], "ada")
    assert row["target"] == job.headers["location"] and row["route"] == "/v1/jobs"
    assert row["client"] == "testclient" and row["project"] == "default"
    assert rows(client, route="/v1/jobs/{job_id}/cancel")[0]["key_name"] == "ada"
    assert {one["key_id"] for one in rows(client, key="ada")} == {key["id"]}
    assert rows(client, key=key["id"], method="DELETE")[0]["status"] == 403
    assert rows(client, since=row["at"])[-1]["id"] == row["id"]
    assert len(rows(client, until=row["at"])) == 2
    with transaction() as session:
        stored = repr(session.execute(text("SELECT * FROM audit")).all())
    assert key["secret"] not in stored and "secret-query" not in stored
    first = client.get("/v1/audit", params={"limit": 3}).json()
    rest = client.get("/v1/audit", params={"limit": 3, "after": first["data"][-1]["id"]}).json()
    assert first["has_more"] and not rest["has_more"]
    assert [*first["data"], *rest["data"]] == rows(client)


def test_every_route_that_changes_something_has_rows(client: TestClient) -> None:
    """Asked with its own examples, and with nonsense: a row each, complete."""
    document = client.get("/openapi.json").json()
    for name, operation in operations(document):
        method, path = name.split()
        logged = method != "GET" and path not in around.ASKS
        if not logged and method != "GET":
            continue
        for body in (example_request(document, name, operation), broken_request(operation)):
            before = rows(client)[:1]
            answer = ask(client, name, operation, body)
            found = [one for one in rows(client)[:1] if one not in before]
            if answer.status_code == 400 or not logged:  # no JSON: nobody looked who sent it
                assert not found, name
            else:
                assert [one["status"] for one in found] == [answer.status_code], name
                assert (found[0]["method"], found[0]["route"]) == (method, path)


def test_a_crash_is_in_the_log(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction() as session:
        session.execute(text("ALTER TABLE datasets ADD CONSTRAINT no CHECK (name <> 'x')"))
    try:
        answer = client.post(
            "/v1/datasets?name=x", content="a", headers={"content-type": "text/plain"}
        )
    finally:
        with transaction() as session:
            session.execute(text("ALTER TABLE datasets DROP CONSTRAINT no"))
    assert_problem(answer, 500, "internal_error")
    assert [one["status"] for one in rows(client)] == [500]


def test_nothing_is_done_without_a_row(client: TestClient) -> None:
    with transaction() as session:
        session.execute(text("ALTER TABLE audit RENAME TO away"))
    try:
        answer = client.post("/v1/projects", json={"id": "red"})
    finally:
        with transaction() as session:
            session.execute(text("ALTER TABLE away RENAME TO audit"))
    assert answer.status_code == 500
    assert client.get("/v1/projects/red").status_code == 404


def test_projects_read_their_own_and_can_change_nothing(client: TestClient) -> None:
    client.post("/v1/projects", json={"id": "red"})
    body = {"name": "root", "scopes": ["admin", "write"]}
    red = as_key(client, client.post("/v1/projects/red/keys", json=body).json()["secret"])
    client.post("/v1/keys", json={"name": "ci", "scopes": ["read"]}, headers=red)
    found = client.get("/v1/audit", headers=red).json()["data"]
    assert [(one["project"], one["key_name"]) for one in found] == [("red", "root")]
    for project in ("*", "default", "red"):
        answer = client.get("/v1/audit", params={"project": project}, headers=red)
        assert_problem(answer, 403, "operator_only")
    assert {one["project"] for one in rows(client)} == {"default"}
    assert {one["project"] for one in rows(client, project="*")} == {"default", "red"}
    assert {one["project"] for one in rows(client, project="red")} == {"red"}
    for statement in (
        "UPDATE audit SET status = 1",
        "DELETE FROM audit",
        "INSERT INTO audit (id, method, route, path) VALUES ('x', 'x', 'x', 'x')",
        "TRUNCATE audit",
        "DELETE FROM usage",
    ):
        with (
            pytest.raises(ProgrammingError, match="permission denied"),
            tenancy.inside("red"),
            transaction() as session,
        ):
            session.execute(text(statement))


def test_commands_of_the_operator_are_in_the_log(client: TestClient) -> None:
    run = CliRunner().invoke
    assert run(app, ["projects", "create", "red"]).exit_code == 0
    assert run(app, ["projects", "create", "red"]).exit_code == 1
    secret = run(app, ["keys", "create", "--name", "ci", "--scope", "read"]).output.strip()
    assert run(app, ["keys", "revoke", "ci", "--project", "red"]).exit_code == 1
    assert run(app, ["keys", "revoke", "ci", "--project", "blue"]).exit_code == 1
    assert run(app, ["keys", "revoke", "ci"]).exit_code == 0
    assert run(app, ["projects", "limit", "red", "--stored-bytes", "1"]).exit_code == 0
    found = [
        (one["project"], one["method"], one["route"], one["path"], one["status"])
        for one in reversed(rows(client, project="*"))
    ]
    assert found == [
        ("default", "CLI", "projects create", "red", 200),
        ("default", "CLI", "projects create", "red", 409),
        ("default", "CLI", "keys create", "ci", 200),
        ("red", "CLI", "keys revoke", "ci", 409),
        ("default", "CLI", "keys revoke", "ci", 200),
        ("default", "CLI", "projects limit", "red", 200),
    ]
    assert "@" in rows(client)[0]["client"] and secret not in repr(rows(client))


def test_a_request_beyond_the_rate_is_not_logged(client: TestClient, database: Any) -> None:
    from redis import Redis

    Redis.from_url(database.redis_url).flushdb()
    client.patch("/v1/projects/default", json={"limits": {"requests_per_minute": 2}})
    made = [client.post("/v1/keys", json={"name": f"k{n}", "scopes": ["read"]}) for n in range(4)]
    operators = client.post("/v1/projects", json={"id": "red"})  # who raises limits is never held
    Redis.from_url(database.redis_url).flushdb()
    assert [one.status_code for one in made] == [201, 201, 429, 429]
    assert operators.status_code == 201
    assert len(rows(client, route="/v1/keys")) == 2


def test_a_database_that_goes_away_keeps_no_answer_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done is told; its row is left as of a gateway that died."""
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    monkeypatch.setattr(audit, "complete", lambda *_: nowhere.connect())
    assert client.post("/v1/projects", json={"id": "red"}).status_code == 201
    monkeypatch.undo()
    assert [one["status"] for one in rows(client)] == [None]
