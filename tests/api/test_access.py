"""Keys and projects: who is let in, to what, and until when."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from selftaught import keys, tenancy
from selftaught.database import transaction
from selftaught.database.tables import Project
from selftaught.settings import get_settings
from services.api import access
from services.api.main import RESOURCES, create_app
from tests.api.conftest import assert_problem
from tests.api.helpers import add_versions, post_job, served, upload
from tests.conftest import Servers


def as_key(client: TestClient, secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def make_key(client: TestClient, name: str, *scopes: str, **options: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={"name": name, "scopes": scopes, **options})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def closed(database: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A gateway as in production: nobody without a key."""
    monkeypatch.delenv("SELFTAUGHT_OPEN")
    get_settings.cache_clear()
    with TestClient(create_app(), "http://judge.example", raise_server_exceptions=False) as found:
        yield found


def test_without_a_key_a_gateway_is_closed(closed: TestClient) -> None:
    answer = closed.get("/v1/jobs")
    assert_problem(answer, 401, "key_required")
    assert answer.headers["www-authenticate"] == "Bearer"
    for header in ("Bearer", "Bearer st_nope", "Basic dTpw", "Bearer \udcff"):
        answer = closed.get(
            "/v1/jobs", headers={"authorization": header.encode("utf-8", "surrogateescape")}
        )  # type: ignore[dict-item]
        assert answer.status_code == 401, header
    assert closed.get("/healthz").status_code == closed.get("/openapi.json").status_code == 200


def test_an_open_gateway_answers_to_this_machine_only(client: TestClient) -> None:
    assert client.get("/v1/jobs").status_code == 200
    odd = ("a{b}.evil.example", "localhost@evil.example", "[", "")
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.example", *odd):
        assert_problem(client.get("/v1/jobs", headers={"host": host}), 403, "foreign_host")
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://[::1"):
        answer = client.get("/v1/jobs", headers={"origin": origin})
        assert_problem(answer, 403, "foreign_origin")
    assert client.get("/v1/jobs", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_a_key_does_what_its_scopes_say(client: TestClient) -> None:
    made = make_key(client, "reader", "read")
    headers = as_key(client, made["secret"])
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    answer = client.post("/v1/keys", json={"name": "x", "scopes": ["admin"]}, headers=headers)
    assert "lacks the scope 'admin'" in assert_problem(answer, 403, "missing_scope")["detail"]
    shown = client.get("/v1/keys").json()["data"]
    assert [one["name"] for one in shown] == ["reader"] and "secret" not in shown[0]
    assert shown[0]["last_used_at"] is not None and made["secret"].startswith(shown[0]["prefix"])
    answer = client.post("/v1/keys", json={"name": "reader", "scopes": ["read"]})
    assert_problem(answer, 409, "key_exists", "name")
    for wrong in ({"name": ""}, {"scopes": []}, {"scopes": ["all"]}, {"name": "a\nb"}):
        answer = client.post("/v1/keys", json={"name": "y", "scopes": ["read"], **wrong})
        assert answer.status_code == 422, wrong


def test_revoked_expired_and_rotated(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KNOWN_SECONDS", 0.0)

    def good(secret: str) -> bool:
        return client.get("/v1/jobs", headers=as_key(client, secret)).status_code == 200

    brief = make_key(client, "brief", "read", expires_in_days=0.5 / 86400)
    key = make_key(client, "ada", "read")
    path = f"/v1/keys/{key['id']}"
    second = client.post(f"{path}/rotate", json={}).json()["secret"]
    assert good(key["secret"]) and good(second)
    third = client.post(f"{path}/rotate", json={"grace_seconds": 0}).json()["secret"]
    assert not good(key["secret"]) and not good(second) and good(third)
    assert client.delete(path).json()["revoked_at"] is not None
    assert not good(third)
    first = client.delete(path).json()["revoked_at"]
    assert client.delete(path).json()["revoked_at"] == first
    assert_problem(client.post(f"{path}/rotate", json={}), 409, "key_revoked")
    assert_problem(client.delete("/v1/keys/key_0"), 404, "key_not_found")
    until = time.monotonic() + 10
    while good(brief["secret"]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not good(brief["secret"])


def test_a_gateway_forgets_what_it_knew_of_a_key(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a revoked key for KNOWN_SECONDS at the most."""
    key = make_key(client, "ada", "read")
    headers = as_key(client, key["secret"])
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    client.delete(f"/v1/keys/{key['id']}")
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    now = time.monotonic() + access.KNOWN_SECONDS
    monkeypatch.setattr(access.time, "monotonic", lambda: now)
    assert_problem(client.get("/v1/jobs", headers=headers), 401, "invalid_key")


def test_two_projects_do_not_meet(client: TestClient) -> None:
    """The same names in both; what the one has is not there for the other."""
    assert client.post("/v1/projects", json={"id": "red"}).status_code == 201
    assert_problem(client.post("/v1/projects", json={"id": "red"}), 409, "project_exists", "id")
    body = {"name": "root", "scopes": ["read", "write", "judge", "promote", "admin"]}
    secret = client.post("/v1/projects/red/keys", json=body).json()["secret"]
    red = as_key(client, secret)
    assert_problem(client.post("/v1/projects/x/keys", json=body), 404, "project_not_found")
    dataset = upload(client)
    job = post_job(client, dataset, model="tour").json()["id"]
    add_versions("tour", [1], latest=1)
    for path in (
        f"/v1/datasets/{dataset}",
        f"/v1/jobs/{job}",
        f"/v1/jobs/{job}/events",
        "/v1/models/tour/versions",
        "/v1/models/tour/aliases/latest",
    ):
        assert client.get(path).status_code == 200
        assert client.get(path, headers=red).status_code == 404, path
    for path in ("/v1/datasets", "/v1/jobs", "/v1/models", "/v1/keys"):
        expected = 1 if path == "/v1/keys" else 0
        assert len(client.get(path, headers=red).json()["data"]) == expected, path
    recipe = {"dataset": dataset, "recipe": "quickstart"}
    answer = client.post("/v1/jobs", json=recipe, headers=red)
    assert_problem(answer, 404, "dataset_not_found", "dataset")
    answer = client.post(f"/v1/jobs/{job}/cancel", headers=red)
    assert_problem(answer, 404, "job_not_found")
    for path in ("/v1/projects", "/v1/engines", "/metrics"):
        assert_problem(client.get(path, headers=red), 403, "operator_only")
        assert client.get(path).status_code == 200


def test_templates_page_by_page_are_all_in_order(client: TestClient) -> None:
    body = {"kind": "score", "user": "{instruction}\n\n{response}\n\nFrom 0 to 10?"}
    for name in ("a", "mz", "m-a", "m.b", "m_c", "z"):
        assert client.post("/v1/templates", json={**body, "name": name}).status_code == 201
    whole = [one["name"] for one in client.get("/v1/templates?limit=100").json()["data"]]
    assert whole == sorted(whole) and {"z", "m-a", "score"} <= set(whole)
    paged: list[str] = []
    more = True
    while more:
        after = {"after": paged[-1]} if paged else {}
        page = client.get("/v1/templates", params={"limit": 2, **after}).json()
        paged += [one["name"] for one in page["data"]]
        more = page["has_more"]
    assert paged == whole


def test_templates_of_one_name_are_each_projects_own(client: TestClient) -> None:
    client.post("/v1/projects", json={"id": "red"})
    body = {"name": "root", "scopes": ["read", "write"]}
    red = as_key(client, client.post("/v1/projects/red/keys", json=body).json()["secret"])
    template = {
        "name": "mine",
        "kind": "score",
        "user": "{instruction}\n\n{response}\n\nFrom 0 to 10?",
    }
    other = {**template, "user": "{instruction} {response} 0 to 10?"}
    assert client.post("/v1/templates", json=template).status_code == 201
    assert client.get("/v1/templates/mine", headers=red).status_code == 404
    assert client.post("/v1/templates", json=other, headers=red).status_code == 201
    assert client.get("/v1/templates/mine", headers=red).json()["content"]["user"] == other["user"]
    assert client.get("/v1/templates/mine").json()["content"]["user"] == template["user"]


def test_a_route_needs_a_rule_and_a_rule_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    create_app()
    rule = access.RULES["GET /v1/jobs"]
    monkeypatch.delitem(access.RULES, "GET /v1/jobs")
    with pytest.raises(RuntimeError, match="GET /v1/jobs"):
        create_app()
    monkeypatch.setitem(access.RULES, "GET /v1/jobs", rule)
    monkeypatch.setitem(access.RULES, "GET /v1/nowhere", rule)
    with pytest.raises(RuntimeError, match="GET /v1/nowhere"):
        create_app()
    assert RESOURCES


def test_requests_of_one_connection_have_nothing_of_each_other(closed: TestClient) -> None:
    """A proxy sends requests of all projects over its connections, maybe ahead of answers."""
    secrets = []
    for project in ("red", "blue"):
        with transaction() as session:
            session.add(Project(id=project))
        with tenancy.inside(project), transaction() as session:
            secrets.append(keys.create(session, "k", ["read"])[1])
    said = b""
    with served(closed.app) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            for secret, rest in zip(secrets, ("", "Connection: close\r\n"), strict=True):
                head = f"Host: judge.example\r\nAuthorization: Bearer {secret}\r\n{rest}\r\n"
                connection.send(b"GET /v1/usage HTTP/1.1\r\n" + head.encode())
            while piece := connection.recv(65536):
                said += piece
    found = re.findall(rb'"project":"(\w+)"', said)
    assert found == [b"red", b"blue"], said
