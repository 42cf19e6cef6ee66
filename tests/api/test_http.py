"""What holds for every route: problems, request ids, limits, health, metrics."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from selftaught.database import session as session_module
from selftaught.database import transaction
from selftaught.http import RequestMiddleware
from selftaught.settings import get_settings
from services.api import jobs, judge
from services.api.main import create_app
from tests.api.conftest import assert_problem
from tests.api.helpers import post_job, upload

PAIR = {"instruction": "i", "response_a": "a", "response_b": "b"}


def test_unknown_addresses_and_methods(client: TestClient) -> None:
    assert_problem(client.get("/nope"), 404, "not_found")
    wrong = client.delete("/v1/jobs")
    assert_problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"]


def test_request_ids_are_taken_if_sane_and_made_otherwise(client: TestClient) -> None:
    given = client.get("/nope", headers={"x-request-id": "abc-1.2_3"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "abc-1.2_3"
    for bad in ("a b", "x" * 129, "<script>"):
        made = client.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        assert made.startswith("req_")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/a%00b",
        "/v1/datasets/%00",
        "/v1/models/a%00/aliases/b",
        "/v1/jobs?after=a%00b",
        "/v1/models?after=%00",
        "/v1/datasets?after=%00",
        "/nope%00",
    ],
)
def test_nul_in_an_address(client: TestClient, path: str) -> None:
    assert_problem(client.get(path), 400, "nul_character")


def test_a_crash_is_a_500_that_tells_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*_: Any) -> None:
        raise RuntimeError("secret path /etc/x")

    monkeypatch.setattr(jobs, "find", crash)
    answer = client.get("/v1/jobs/x")
    body = assert_problem(answer, 500, "internal_error")
    assert "secret" not in json.dumps(body)
    assert body["request_id"] in caplog.text and "secret" in caplog.text


def test_a_body_over_the_limit(client: TestClient) -> None:
    answer = client.post("/judge", json={**PAIR, "instruction": "x" * 5_000_000})
    assert_problem(answer, 413, "body_too_large")


def test_health(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert ready.json()["checks"] == {"postgres": "ok", "schema": "ok", "redis": "ok"}
    monkeypatch.setattr(get_settings(), "redis_url", "redis://127.0.0.1:1/0")
    down = client.get("/readyz")
    assert down.status_code == 503 and not down.json()["ready"]
    assert down.json()["checks"]["redis"].startswith("unreachable")
    assert down.json()["checks"]["postgres"] == "ok"


def test_an_older_schema_is_not_ready(client: TestClient) -> None:
    with transaction() as session:
        head = session.scalar(text("SELECT version_num FROM alembic_version"))
        session.execute(text("UPDATE alembic_version SET version_num = 'old'"))
    try:
        answer = client.get("/readyz")
        assert answer.status_code == 503 and "old" in answer.json()["checks"]["schema"]
    finally:
        with transaction() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head})


def test_metrics(client: TestClient) -> None:
    post_job(client, upload(client))
    client.get("/v1/jobs/job_none")
    client.get("/nope")
    found = client.get("/metrics").text
    for line in (
        'selftaught_http_requests_total{method="POST",route="/v1/jobs",status="201"} 1.0',
        'selftaught_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0',
        'selftaught_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'selftaught_jobs{state="running"} 1.0',
        'selftaught_jobs{state="failed"} 0.0',
        'selftaught_ready_chunks{queue="trainer"} 1.0',
        "selftaught_database_up 1.0",
    ):
        assert line in found, line
    assert 'selftaught_oldest_ready_chunk_seconds{queue="trainer"}' in found


def test_without_postgres(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    monkeypatch.setattr(session_module, "get_engine", lambda: nowhere)
    answer = client.get("/v1/jobs")
    assert_problem(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"] and "nobody" not in answer.text
    assert "selftaught_database_up 0.0" in client.get("/metrics").text
    ready = client.get("/readyz").json()
    assert ready["checks"]["postgres"].startswith("unreachable") and not ready["ready"]
    assert client.get("/healthz").status_code == 200


def test_a_server_that_stops_says_so_to_whom_it_keeps_waiting() -> None:
    """Its patience over, uvicorn cancels what still runs, and would answer 500 in plain text."""
    sent: list[Any] = []

    async def stopped() -> None:
        reached = asyncio.Event()

        async def hangs(*_: Any) -> None:
            reached.set()
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError("nothing is read")

        app = RequestMiddleware(hangs, CollectorRegistry(), frozenset())
        scope = {"type": "http", "method": "POST", "path": "/judge", "query_string": b""}
        request = asyncio.create_task(app({**scope, "headers": []}, receive, send))
        await reached.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(stopped())
    start, body = sent
    assert start["status"] == 503
    problem = json.loads(body["body"])
    assert problem["code"] == "shutting_down" and problem["request_id"]


def test_a_detail_does_not_repeat_megabytes(client: TestClient) -> None:
    answer = client.post("/v1/jobs", json={"dataset": "x", "recipe": "y" * 3_000_000})
    assert_problem(answer, 422, "unknown_recipe", "recipe")
    assert len(answer.content) < 5000


def test_judge_passes_through(database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any, dict[str, Any]]] = []

    class Evaluator(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, self.headers, body))
            self.send_response(409)
            for name, value in {"x-inner": "1", "content-length": "19"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b'{"code":"no_model"}')

    server = ThreadingHTTPServer(("127.0.0.1", 0), Evaluator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The first replica is not there: the second one answers.
    urls = f"http://127.0.0.1:1, http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(get_settings(), "evaluator_url", urls)
    with TestClient(create_app(), "http://localhost") as client:
        for path in ("/judge", "/v1/judge"):
            named = {"x-request-id": "r1", "selftaught-model": "m:3"}
            answer = client.post(path, json=PAIR, headers=named)
            assert (answer.status_code, answer.json()) == (409, {"code": "no_model"})
            assert "x-inner" not in answer.headers
        client.post("/judge", json={**PAIR, "model": "m:4"}, headers={"selftaught-model": "m:3"})
    server.shutdown()
    server.server_close()
    (path, headers, body), _, (_, _, last) = seen
    assert path == "/judge" and headers["x-request-id"] == "r1"
    assert (body["votes"], body["model"], last["model"]) == (1, "m:3", "m:4")


def test_judge_without_an_evaluator(database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "evaluator_url", "http://127.0.0.1:1")
    with TestClient(create_app(), "http://localhost") as client:
        answer = client.post("/judge", json=PAIR)
        assert_problem(answer, 503, "evaluator_unavailable")
        assert answer.headers["retry-after"]
        assert_problem(client.post("/judge", json={}), 422, "invalid_request", "response_a")


def test_a_call_that_kills_evaluators_is_given_up(
    database: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicas that end the connection, each so late that the other counts as well again."""
    monkeypatch.setattr(judge, "LOST_SECONDS", 0.0)
    asked: list[int] = []

    class Dies(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(1)
            self.close_connection = True

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Dies) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = ",".join(f"http://127.0.0.1:{server.server_port}" for server in servers)
    monkeypatch.setattr(get_settings(), "evaluator_url", urls)
    with TestClient(create_app(), "http://localhost") as client:
        assert_problem(client.post("/judge", json=PAIR), 503, "evaluator_unavailable")
    for server in servers:
        server.shutdown()
        server.server_close()
    assert len(asked) == judge.MOST_DEATHS


def test_the_gateway_imports_no_torch() -> None:
    code = (
        "import sys, services.api.main\n"
        "bad = {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_body_without_its_type_is_told_which_header_is_missing(client: TestClient) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for path in ("/v1/jobs", "/judge", "/v1/keys"):
        body = assert_problem(client.post(path, content="{}", headers=form), 422, "invalid_request")
        assert body["detail"].endswith("with the header Content-Type: application/json")
    told = client.post("/v1/jobs", content="[]", headers={"content-type": "application/json"})
    assert "header" not in told.json()["detail"]
