"""Idempotency-Key: what was made once is not made again, whatever dies in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.testclient import TestClient

from selftaught import aliases
from selftaught.client import ApiError, Client
from selftaught.database import transaction
from selftaught.database.tables import Base
from selftaught.keeping import retention
from selftaught.stack.state import free_port
from services.api import idempotency
from services.api.main import RESOURCES
from tests.api.conftest import assert_problem
from tests.api.helpers import RECIPE, add_versions, served, upload, upload_labelled
from tests.api.test_access import as_key, make_key
from tests.conftest import Servers

ONCE = {"idempotency-key": "k1"}
JSONL = {"content-type": "application/x-ndjson"}
NEVER = {
    "/judge": "a question changes nothing",
    "/v1/judge": "a question changes nothing",
    "/v1/score": "a question changes nothing",
    "/v1/rank": "a question changes nothing",
    "/v1/chat/completions": "a question changes nothing",
    "/openai/v1/chat/completions": "a question changes nothing",
    "/v1/jobs/{job_id}/cancel": "asking again changes nothing",
    "/v1/jobs/{job_id}/pause": "asking again changes nothing",
    "/v1/jobs/{job_id}/resume": "a job that is going on is left alone",
    "/v1/jobs/{job_id}/retry": "a job that is going on is left alone",
    "/v1/judge/batches/{batch_id}/cancel": "asking again changes nothing",
    "/v1/reviews/{item}/answers": "the same answer again is replayed",
    "/v1/reviews/{item}/skip": "skipping again changes nothing",
}
"""POST routes that make nothing, or nothing twice, by themselves."""
LINEAGE = {
    "template": {"name": "mt-bench"},
    "inference": "local",
    "judge_max_tokens": 9,
    "judge_sampling": {"temperature": 0.5},
}


def posts() -> Iterator[APIRoute]:
    for resource in RESOURCES:
        for route in resource.router.routes:
            if isinstance(route, APIRoute) and "POST" in (route.methods or ()):
                yield route


def takes_the_header(found: Dependant) -> bool:
    return any(one.call is idempotency._once for one in found.dependencies)


def test_every_post_takes_the_header_or_says_why_not() -> None:
    """A new one gets `Once`, calls `keep`, and a case in CASES; or a reason in NEVER."""
    taking = {route.path_format for route in posts() if takes_the_header(route.dependant)}
    others = {route.path_format for route in posts()} - taking
    assert others == NEVER.keys()
    assert taking == CASES.keys()


Case = Callable[[TestClient], tuple[str, Any]]


def job(client: TestClient) -> tuple[str, Any]:
    return "/v1/jobs", {"json": {"dataset": upload(client), "recipe": RECIPE}}


def dataset(client: TestClient) -> tuple[str, Any]:
    return "/v1/datasets", {"content": "a\nb\n", "headers": {"content-type": "text/plain"}}


def evaluation(client: TestClient) -> tuple[str, Any]:
    add_versions("m", [1], latest=1, lineage=LINEAGE)
    return "/v1/evaluations", {"json": {"model": "m:1", "dataset": upload_labelled(client)}}


def batch(client: TestClient) -> tuple[str, Any]:
    add_versions("m", [1], latest=1, lineage=LINEAGE)
    pair = {"instruction": "i", "response_a": "a", "response_b": "b"}
    return "/v1/judge/batches?votes=2", {"content": json.dumps(pair), "headers": JSONL}


def queue(client: TestClient) -> tuple[str, Any]:
    add_versions("m", [1], latest=1, lineage=LINEAGE)
    body = {"size": 10, "source": upload_labelled(client), "against": None}
    return "/v1/models/m/versions/1/reviews", {"json": body}


def promotion(client: TestClient) -> tuple[str, Any]:
    add_versions("m", [1, 2], latest=1)
    key = as_key(client, make_key(client, "boss", "promote")["secret"])
    body = {"force": True, "reason": "it is better", "prepare": False}
    return "/v1/models/m/versions/2/promote", {"json": body, "headers": key}


def rollback(client: TestClient) -> tuple[str, Any]:
    add_versions("m", [1, 2, 3], latest=1)
    with transaction() as session:
        for number in (2, 3):
            aliases.move(session, "m", "latest", number, "test")
    return "/v1/models/m/aliases/latest/rollback", {}


def project_key(client: TestClient) -> tuple[str, Any]:
    client.post("/v1/projects", json={"id": "red"})
    return "/v1/projects/red/keys", {"json": {"name": "ci", "scopes": ["read"]}}


def rotation(client: TestClient) -> tuple[str, Any]:
    key = make_key(client, "ci", "read")["id"]
    return f"/v1/keys/{key}/rotate", {"json": {"grace_seconds": 60}}


def webhook(client: TestClient) -> tuple[str, Any]:
    return "/v1/webhooks", {"json": {"url": "https://93.184.216.34/x", "events": ["job.succeeded"]}}


def made_webhook(client: TestClient) -> str:
    path, options = webhook(client)
    answer = client.post(path, **options)
    assert answer.status_code == 201, answer.text
    return f"{path}/{answer.json()['id']}"


def redelivery(client: TestClient) -> tuple[str, Any]:
    path = made_webhook(client)
    delivery = client.post(f"{path}/test").json()["id"]
    return f"{path}/deliveries/{delivery}/redeliver", {}


CASES: dict[str, Case] = {
    "/v1/jobs": job,
    "/v1/datasets": dataset,
    "/v1/evaluations": evaluation,
    "/v1/judge/batches": batch,
    "/v1/models/{name}/versions/{number}/reviews": queue,
    "/v1/models/{name}/versions/{number}/promote": promotion,
    "/v1/models/{name}/aliases/{alias}/rollback": rollback,
    "/v1/models": lambda _: ("/v1/models", {"json": {"base_model": "smallworld"}}),
    "/v1/templates": lambda _: (
        "/v1/templates",
        {"json": {"name": "t", "kind": "score", "user": "{instruction} {response} 0 to 10?"}},
    ),
    "/v1/projects": lambda _: ("/v1/projects", {"json": {"id": "blue"}}),
    "/v1/keys": lambda _: ("/v1/keys", {"json": {"name": "ci", "scopes": ["read"]}}),
    "/v1/projects/{project_id}/keys": project_key,
    "/v1/keys/{key_id}/rotate": rotation,
    "/v1/webhooks": webhook,
    "/v1/webhooks/{webhook_id}/rotate-secret": lambda client: (
        f"{made_webhook(client)}/rotate-secret",
        {},
    ),
    "/v1/webhooks/{webhook_id}/test": lambda client: (f"{made_webhook(client)}/test", {}),
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": redelivery,
}
"""A good request to each route that takes the header."""
SECRET = {
    "/v1/keys",
    "/v1/projects/{project_id}/keys",
    "/v1/keys/{key_id}/rotate",
    "/v1/webhooks",
    "/v1/webhooks/{webhook_id}/rotate-secret",
}


def contents() -> dict[str, Any]:
    """Every row there is, but for those that tell of requests."""
    left_out = {"audit", "idempotency_keys", "usage"}
    with transaction() as session:
        return {
            table.name: sorted(map(repr, session.execute(table.select()).all()))
            for table in Base.metadata.sorted_tables
            if table.name not in left_out
        }


def send(client: TestClient, path: str, options: dict[str, Any], **headers: str) -> Any:
    headers = {**ONCE, **options.get("headers", {}), **headers}
    return client.post(path, **{**options, "headers": headers})


@pytest.mark.parametrize("route", CASES)
def test_the_same_request_again_makes_nothing_and_is_answered_alike(
    client: TestClient, route: str
) -> None:
    path, options = CASES[route](client)
    first = send(client, path, options)
    assert first.is_success and "idempotency-replayed" not in first.headers, first.text
    made = contents()
    again = send(client, path, options)
    if route in SECRET:
        told = assert_problem(again, 409, "secret_shown_once")["detail"]
        assert first.json()["id"] in told and first.json()["secret"] not in told
    else:
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.json()) == (first.status_code, first.json())
        assert again.headers.get("location") == first.headers.get("location")
        assert again.headers["content-type"] == first.headers["content-type"]
    other = send(client, path + ("&" if "?" in path else "?") + "x=1", options)
    assert_problem(other, 422, "idempotency_key_reused", "Idempotency-Key")
    assert contents() == made
    with transaction() as session:
        stored = repr(session.execute(text("SELECT * FROM idempotency_keys")).all())
    assert "st_" not in stored and "whsec_" not in stored


def test_a_refusal_lets_go_of_the_key(client: TestClient) -> None:
    body = {"dataset": "ds_0", "recipe": RECIPE}
    for _ in range(2):
        answer = client.post("/v1/jobs", json=body, headers=ONCE)
        assert_problem(answer, 404, "dataset_not_found")
    answer = client.post("/v1/jobs", json={"recipe": 5}, headers=ONCE)
    assert answer.status_code == 422
    body["dataset"] = upload(client)
    assert client.post("/v1/jobs", json=body, headers=ONCE).status_code == 201
    answer = client.post("/v1/jobs", json=body, headers=[(b"idempotency-key", "k\u00e4".encode())])
    assert_problem(answer, 422, "invalid_request", "Idempotency-Key")
    for wrong in ("", "a b", "x" * 256):
        answer = client.post("/v1/jobs", json=body, headers={"idempotency-key": wrong})
        assert_problem(answer, 422, "invalid_request", "Idempotency-Key")


def test_another_model_in_the_header_is_another_request(client: TestClient) -> None:
    url, given = batch(client)
    add_versions("m", [2], lineage=LINEAGE)

    def send(model: str) -> Any:
        headers = {**given["headers"], "idempotency-key": "k", "selftaught-model": model}
        return client.post(url, content=given["content"], headers=headers)

    first = send("m:1")
    assert (first.status_code, first.json()["model"]) == (201, "m:1"), first.text
    assert send("m:1").json() == first.json()
    assert_problem(send("m:2"), 422, "idempotency_key_reused", "Idempotency-Key")


def test_keys_of_two_projects_are_two(client: TestClient) -> None:
    client.post("/v1/projects", json={"id": "red"})
    body = {"name": "root", "scopes": ["write"]}
    secret = client.post("/v1/projects/red/keys", json=body).json()["secret"]
    content, plain = "a\nb\n", {"content-type": "text/plain", **ONCE}
    first = client.post("/v1/datasets", content=content, headers=plain)
    second = client.post(
        "/v1/datasets", content=content, headers={**plain, **as_key(client, secret)}
    )
    assert first.status_code == second.status_code == 201
    assert first.json()["id"] != second.json()["id"]


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_a_form_is_the_same_whatever_its_boundary(client: TestClient, pieces: int) -> None:
    """Clients draw a new one each time; the file may be cut anywhere."""

    def form(boundary: str, rows: str) -> tuple[Iterator[bytes], dict[str, str]]:
        body = (
            f"--{boundary}\r\nContent-Disposition: form-data; name=file; filename=a.txt\r\n\r\n"
            f"{rows}\r\n--{boundary}--\r\n"
        ).encode()
        cut = (body[at : at + pieces] for at in range(0, len(body), pieces))
        return cut, {**ONCE, "content-type": f"multipart/form-data; boundary={boundary}"}

    answers = []
    for boundary, rows in (("xyzzy", "say a\nsay b"), ("xyxyx-1", "say a\nsay b"), ("b", "say c")):
        content, headers = form(boundary, rows)
        answers.append(client.post("/v1/datasets", content=content, headers=headers))
    assert answers[0].status_code == answers[1].status_code == 201, answers[0].text
    assert answers[0].json() == answers[1].json()
    assert_problem(answers[2], 422, "idempotency_key_reused")


def test_twenty_at_once_make_one(client: TestClient) -> None:
    path, options = job(client)
    with ThreadPoolExecutor(20) as pool:
        sent = [pool.submit(send, client, path, options) for _ in range(20)]
        answers = [one.result() for one in sent]
    good = [one for one in answers if one.status_code == 201]
    assert good and len({one.json()["id"] for one in good}) == 1
    for one in answers:
        if one not in good:
            assert_problem(one, 409, "idempotency_in_flight")
            assert one.headers["retry-after"] == "1"
    assert len(client.get("/v1/jobs").json()["data"]) == 1
    assert send(client, path, options).json() == good[0].json()


@contextmanager
def first_waits() -> Iterator[Callable[[], None]]:
    """The first transaction that adds a job waits, in Postgres, until the block calls what it is
    given; others do not."""
    stop = """
        CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF pg_try_advisory_xact_lock(7) THEN PERFORM pg_advisory_xact_lock_shared(8); END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER wait_here BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION wait_here()
    """
    with transaction() as session:
        session.execute(text(stop))
    gate = transaction()
    gate.__enter__().execute(text("SELECT pg_advisory_xact_lock(8)"))
    opened = False

    def go_on() -> None:
        nonlocal opened
        opened = True
        gate.__exit__(None, None, None)

    try:
        yield go_on
    finally:
        if not opened:
            go_on()
        with transaction() as session:
            session.execute(text("DROP FUNCTION wait_here CASCADE"))


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def waiting() -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with transaction() as session:
        return bool(session.scalar(text(query)))


def grow_old() -> None:
    query = "UPDATE idempotency_keys SET reserved_at = reserved_at - make_interval(secs => :age)"
    with transaction() as session:
        session.execute(text(query), {"age": idempotency.TAKEN_OVER_SECONDS + 1})


def test_a_late_request_whose_key_was_taken_over_leaves_nothing(client: TestClient) -> None:
    path, options = job(client)
    late: list[Any] = []
    with first_waits() as go_on:
        thread = threading.Thread(target=lambda: late.append(send(client, path, options)))
        thread.start()
        until(waiting)
        assert_problem(send(client, path, options), 409, "idempotency_in_flight")
        grow_old()
        second = send(client, path, options)
        assert second.status_code == 201
        go_on()
        thread.join()
    assert_problem(late[0], 409, "idempotency_in_flight")
    assert [one["id"] for one in client.get("/v1/jobs").json()["data"]] == [second.json()["id"]]
    assert send(client, path, options).json() == second.json()


def test_an_answer_is_kept_for_its_time(client: TestClient) -> None:
    path, options = job(client)
    first = send(client, path, options)
    with transaction() as session:
        session.execute(
            text("UPDATE idempotency_keys SET reserved_at = reserved_at - interval '23 hours'")
        )
    assert send(client, path, options).json()["id"] == first.json()["id"]
    with transaction() as session:
        session.execute(
            text("UPDATE idempotency_keys SET reserved_at = reserved_at - interval '1 hour'")
        )
    assert send(client, path, options).json()["id"] != first.json()["id"]


def expired() -> dict[str, int]:
    return {one.what: one.rows for one in retention.expire(dry_run=False) if one.rows}


def test_old_answers_and_audit_rows_are_deleted(client: TestClient) -> None:
    path, options = job(client)
    first = send(client, path, options)
    assert not expired()
    with transaction() as session:
        session.execute(
            text("UPDATE idempotency_keys SET reserved_at = reserved_at - interval '25 hours'")
        )
        session.execute(text("UPDATE audit SET at = at - interval '366 days'"))
    client.post("/v1/projects", json={"id": "red"}, headers={"idempotency-key": "young"})
    assert expired() == {"audit": 2, "idempotency keys": 1}
    assert [one["route"] for one in client.get("/v1/audit").json()["data"]] == ["/v1/projects"]
    assert client.get(first.headers["location"]).status_code == 200


@contextmanager
def gateway(port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A real one, in a process of its own."""
    command = (sys.executable, "-m", "uvicorn", "services.api.main:app", "--port", str(port))
    with subprocess.Popen([*command, "--log-level", "warning"], env=os.environ) as process:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/healthz").is_success
            except httpx.TransportError:
                return False

        try:
            until(ready)
            yield process, url
        finally:
            process.kill()


def test_a_gateway_killed_before_its_answer_has_made_one_job(
    client: TestClient, database: Servers
) -> None:
    """It dies after its commit and before its answer (the audit row is completed in between)."""
    path, options = job(client)
    stop = """
        CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_advisory_xact_lock_shared(8); RETURN NEW;
        END $$;
        CREATE TRIGGER wait_here BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION wait_here()
    """
    with transaction() as session:
        session.execute(text(stop))
    answers: list[Any] = []
    headers = {**ONCE, "content-type": "application/json"}
    body = json.dumps(options["json"])
    with gateway(free_port()) as (process, url):

        def ask() -> None:
            try:
                answers.append(httpx.post(url + path, content=body, headers=headers, timeout=60))
            except httpx.TransportError as error:
                answers.append(error)

        with transaction() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(8)"))
            thread = threading.Thread(target=ask)
            thread.start()
            until(waiting)
            process.send_signal(signal.SIGKILL)
            thread.join()
    assert isinstance(answers[0], httpx.TransportError)
    with transaction() as session:
        session.execute(text("DROP FUNCTION wait_here CASCADE"))
    with gateway(free_port()) as (_, url):
        again = httpx.post(url + path, content=body, headers=headers)
    assert again.status_code == 201 and again.headers["idempotency-replayed"] == "true"
    listed = client.get("/v1/jobs").json()["data"]
    assert [one["id"] for one in listed] == [again.json()["id"]]
    rows = client.get("/v1/audit", params={"route": "/v1/jobs"}).json()["data"]
    assert [one["status"] for one in rows] == [201, None]


def test_the_client_tries_again_and_makes_one(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Between it and the gateway every first answer of a POST is lost."""
    monkeypatch.setattr("selftaught.client._sync.transport.PAUSE", 0.0)
    lost: list[str] = []

    async def losing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await client.app(scope, receive, send)
            return
        sent: list[Any] = []

        async def keep_back(message: Any) -> None:
            sent.append(message)

        await client.app(scope, receive, keep_back)
        if scope["method"] == "POST" and scope["path"] not in lost:
            lost.append(scope["path"])
            await send(sent[0])
            raise ConnectionResetError  # its body never comes
        for message in sent:
            await send(message)

    rows = tmp_path / "rows.txt"
    rows.write_text("".join(f"say {n}\n" for n in range(30_000)))
    add_versions("m", [1], latest=1, lineage=LINEAGE)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"instruction": "i", "response_a": "a", "response_b": "b"}\n')
    with served(losing) as url, Client(url) as found:
        made = found.datasets.upload(rows)
        begun = found.jobs.create(made.id, recipe=RECIPE)
        batch = found.batches.create(lines)
        with pytest.raises(ApiError, match="secret_shown_once"):
            found.keys.create("ci", ["read"])
    assert len(lost) == 4
    assert [one["id"] for one in client.get("/v1/datasets").json()["data"]] == [made.id]
    listed = {one["id"] for one in client.get("/v1/jobs").json()["data"]}
    assert listed == {begun.id, batch.id}
    assert len(client.get("/v1/keys").json()["data"]) == 1
