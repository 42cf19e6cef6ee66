"""Rates and quotas: who is refused, with what headers, and what is counted."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import text
from starlette.testclient import TestClient
from typer.testing import CliRunner

from selftaught import tenancy, usage
from selftaught.cli import app
from selftaught.database import transaction
from selftaught.settings import get_settings
from selftaught.work import kernel
from selftaught.work.kernel import Lease, Result
from services.api import limits
from services.api.main import create_app
from services.api.rates import Rates
from services.evaluator.recorder import Recorder
from tests.api.conftest import assert_problem
from tests.api.helpers import post_job, upload
from tests.api.test_access import as_key
from tests.conftest import Servers
from tests.work.helpers import make_job, ready


@pytest.fixture
def red(client: TestClient, database: Servers) -> dict[str, str]:
    """Headers of a key of the project `red`."""
    Redis.from_url(database.redis_url).flushdb()
    client.post("/v1/projects", json={"id": "red"})
    body = {"name": "all", "scopes": ["read", "write", "judge"]}
    return as_key(client, client.post("/v1/projects/red/keys", json=body).json()["secret"])


def limit(client: TestClient, **changed: int | None) -> dict[str, Any]:
    answer = client.patch("/v1/projects/red", json={"limits": changed})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["limits"]
    return found


def use(**used: Any) -> None:
    with transaction() as session:
        usage.add(session, "red", **used)


def test_limits_are_set_one_by_one(client: TestClient, red: dict[str, str]) -> None:
    assert set(client.get("/v1/projects/red").json()["limits"].values()) == {None}
    limit(client, requests_per_minute=5, tokens_per_day=7)
    found = limit(client, requests_per_minute=None, stored_bytes=9)
    assert found == {
        "requests_per_minute": None,
        "tokens_per_day": 7,
        "gpu_seconds_per_day": None,
        "stored_bytes": 9,
    }
    for wrong in ({"requests_per_minute": 0}, {"tokens_per_day": -1}, {"tokens": 1}, {"x": None}):
        answer = client.patch("/v1/projects/red", json={"limits": wrong})
        assert_problem(answer, 422, "invalid_request")
    assert_problem(client.patch("/v1/projects/blue", json={"limits": {}}), 404, "project_not_found")
    answer = client.patch("/v1/projects/red", json={"limits": {}}, headers=red)
    assert_problem(answer, 403, "missing_scope")


def test_a_rate_is_of_a_minute_and_of_one_project(client: TestClient, red: dict[str, str]) -> None:
    assert "ratelimit" not in client.get("/v1/jobs", headers=red).headers
    limit(client, requests_per_minute=3)
    answers = [client.get("/v1/jobs", headers=red) for _ in range(2)]
    answers.append(client.get("/v1/nowhere", headers=red))  # no route: not counted
    answers.append(client.get("/v1/jobs/job_0", headers=red))
    assert [one.status_code for one in answers] == [200, 200, 404, 404]
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=60'
    assert answers[0].headers["ratelimit"].startswith('"requests";r=2;t=')
    assert answers[3].headers["ratelimit"].startswith('"requests";r=0;t=')
    refused = client.get("/v1/jobs", headers=red)
    assert_problem(refused, 429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert client.get("/v1/jobs").status_code == 200  # the operator's project has no limit
    limit(client, requests_per_minute=6)
    used = client.get("/v1/usage", headers=red).json()["requests"]
    assert (used["used"], used["limit"]) == (5, 6) and used["resets_at"]


def test_replicas_count_together_and_nobody_twice(
    database: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.rates.PATIENCE", 30.0)
    Redis.from_url(database.redis_url).flushdb()

    async def main() -> list[int]:
        replicas = [Rates(database.redis_url) for _ in range(3)]
        found = await asyncio.gather(*(replicas[n % 3].count("red") for n in range(60)))
        assert (await replicas[0].count("red", 0)).requests == 60
        assert (await replicas[1].count("blue")).requests == 1
        assert all(0 < one.seconds <= 60 for one in found)
        for replica in replicas:
            await replica.close()
        return sorted(one.requests for one in found)

    assert asyncio.run(main()) == list(range(1, 61))


def test_a_redis_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts connections and says nothing; each gateway then counts for itself."""
    monkeypatch.setattr("services.api.rates.AWAY_SECONDS", 3600.0)
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    asked.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()

        async def main() -> list[int]:
            rates = Rates(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
            found = [(await rates.count("red")).requests for _ in range(50)]
            assert (await rates.count("blue")).requests == 1
            await rates.close()
            return found

        assert asyncio.run(main()) == list(range(1, 51))
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert len(asked) == 1
    for one in asked:
        one.close()


def test_without_redis_a_limit_still_holds(
    database: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    with TestClient(create_app(), "http://localhost", raise_server_exceptions=False) as client:
        client.patch("/v1/projects/default", json={"limits": {"requests_per_minute": 2}})
        found = [client.get("/v1/jobs").status_code for _ in range(3)]
    assert found == [200, 200, 429]


def test_used_up_quotas_let_nothing_in(client: TestClient, red: dict[str, str]) -> None:
    dataset = client.post(
        "/v1/datasets", content="a\nb\nc\nd\n", headers={**red, "content-type": "text/plain"}
    ).json()["id"]
    limit(client, tokens_per_day=100, gpu_seconds_per_day=60)
    use(tokens=99, gpu_seconds=59.5)
    client.app.state.standings.forget("red")  # type: ignore[attr-defined]
    job = {"dataset": dataset, "recipe": {"name": "r", "validate": {"instructions": 2}}}
    made = client.post("/v1/jobs", json=job, headers=red)
    assert made.status_code == 201
    pair = {"instruction": "i", "response_a": "a", "response_b": "b"}
    assert client.post("/judge", json=pair, headers=red).status_code != 429
    use(tokens=1)
    client.app.state.standings.forget("red")  # type: ignore[attr-defined]
    for path, body in {
        "/v1/jobs": job,
        "/judge": pair,
        "/v1/judge": pair,
        "/v1/score": {"instruction": "i", "response": "a"},
        "/v1/rank": {"instruction": "i", "responses": ["a", "b"]},
        "/v1/evaluations": {"model": "m", "dataset": dataset},
        "/v1/models/m/versions/1/reviews": {"size": 5, "source": dataset},
        "/v1/models": {"base_model": "smallworld"},
        f"/v1/jobs/{made.json()['id']}/resume": None,
        f"/v1/jobs/{made.json()['id']}/retry": None,
    }.items():
        answer = client.post(path, json=body, headers=red)
        assert (
            "tokens_per_day: 100 of 100" in assert_problem(answer, 429, "quota_exceeded")["detail"]
        )
        assert 0 < int(answer.headers["retry-after"]) <= 86400, path
    jsonl = {**red, "content-type": "application/x-ndjson"}
    answer = client.post("/v1/judge/batches", content="{}", headers=jsonl)
    assert_problem(answer, 429, "quota_exceeded")
    assert client.get("/v1/jobs", headers=red).status_code == 200
    found = client.get("/v1/usage", headers=red).json()
    assert (found["tokens"]["used"], found["gpu_seconds"]["used"]) == (100, 59.5)
    assert found["tokens"]["resets_at"].endswith("T00:00:00Z") and found["requests"] is None
    limit(client, tokens_per_day=None, gpu_seconds_per_day=59)
    answer = client.post("/judge", json=pair, headers=red)
    assert "gpu_seconds_per_day" in assert_problem(answer, 429, "quota_exceeded")["detail"]


def test_stored_bytes_are_counted_before_while_and_after_an_upload(
    client: TestClient, red: dict[str, str]
) -> None:
    headers = {**red, "content-type": "text/plain"}

    def send(rows: int) -> Any:
        return client.post("/v1/datasets", content="say what\n" * rows, headers=headers)

    assert send(3).status_code == 201
    used = client.get("/v1/usage", headers=red).json()["stored_bytes"]["used"]
    assert used > 27
    limit(client, stored_bytes=used + 100)
    for body in ("x" * 101, iter([b"x" * 60, b"y" * 60])):  # declared, and counted
        answer = client.post("/v1/datasets", content=body, headers=headers)  # type: ignore[arg-type]
        assert "100 bytes more" in assert_problem(answer, 429, "quota_exceeded")["detail"]
        assert "retry-after" not in answer.headers  # waiting does not help
    answer = send(10)  # 90 bytes that become more, as rows with ids
    assert "would exceed the quota" in assert_problem(answer, 429, "quota_exceeded")["detail"]
    assert client.get("/v1/usage", headers=red).json()["stored_bytes"]["used"] == used
    assert not list(get_settings().artifacts_dir.rglob("*.jsonl"))[1:]
    assert send(1).status_code == 201
    limit(client, stored_bytes=1)
    assert_problem(send(1), 429, "quota_exceeded")
    assert upload(client)  # another project's


def test_uploads_at_once_do_not_share_the_same_room(
    client: TestClient, red: dict[str, str]
) -> None:
    headers = {**red, "content-type": "text/plain"}
    limit(client, stored_bytes=250)
    with ThreadPoolExecutor(8) as pool:
        rows = "say what you see\n" * 2
        sent = [
            pool.submit(client.post, "/v1/datasets", content=rows, headers=headers)
            for _ in range(8)
        ]
        found = [one.result().status_code for one in sent]
    used = client.get("/v1/usage", headers=red).json()["stored_bytes"]["used"]
    assert set(found) == {201, 429} and used <= 250


def test_what_a_chunk_used_is_counted_once_with_its_result(database: Servers) -> None:
    def used() -> tuple[int, float]:
        with transaction() as session:
            found = usage.standing(session, "default")
        return found.tokens, found.gpu_seconds

    (chunk,) = ready(make_job())
    lease = kernel.claim(chunk, "test")
    assert isinstance(lease, Lease)
    result = Result(counts={"tokens": 30, "prompt_tokens": 12, "pairs": 5}, gpu_seconds=1.5)

    def broken(*_: Any) -> None:
        raise RuntimeError("its rows cannot be written")

    with pytest.raises(RuntimeError), tenancy.inside("default"):
        kernel.finish(lease, result, broken)
    assert used() == (0, 0.0)
    with tenancy.inside("default"):  # as a worker does
        assert kernel.finish(lease, result)
        assert not kernel.finish(lease, result)
    assert used() == (42, 1.5)


def test_devices_that_were_held_in_vain_are_counted_too(database: Servers) -> None:
    with usage.Held("default", 4) as held:
        pass
    assert held.seconds > 0
    with transaction() as session:
        assert usage.standing(session, "default").gpu_seconds == 0  # published with the result
    with pytest.raises(KeyError), usage.Held("default", 4) as held:
        raise KeyError
    with transaction() as session:
        assert usage.standing(session, "default").gpu_seconds == pytest.approx(held.seconds)


def test_tokens_of_calls_wait_for_a_database_that_is_away(
    database: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        recorder = Recorder()
        recorder.spend("default", 5)
        recorder.spend("default", 6)
        with transaction() as session:
            session.execute(text("LOCK TABLE usage IN ACCESS EXCLUSIVE MODE"))
            slow = get_settings().database_url + "%20-c%20lock_timeout%3D50"
            monkeypatch.setenv("DATABASE_URL", slow)
            _fresh()
            with pytest.raises(Exception, match="lock timeout"):
                await recorder.flush()
        await recorder.flush()
        await recorder.flush()

    asyncio.run(main())
    with transaction() as session:
        assert usage.standing(session, "default").tokens == 11


def _fresh() -> None:
    from selftaught.database import get_engine

    get_settings.cache_clear()
    get_engine.cache_clear()


def test_projects_are_limited_from_the_command_line(client: TestClient, red: Any) -> None:
    run = CliRunner().invoke
    done = run(app, ["projects", "limit", "red", "--requests-per-minute", "9"])
    assert (done.exit_code, done.output) == (0, "requests_per_minute=9\n")
    done = run(app, ["projects", "limit", "red", "--stored-bytes", "5"])
    assert done.output == "requests_per_minute=9 stored_bytes=5\n"
    done = run(app, ["projects", "limit", "red", "--no-limit", "requests-per-minute"])
    assert done.output == "stored_bytes=5\n"
    assert "red\tstored_bytes=5" in run(app, ["projects", "list"]).output
    assert run(app, ["projects", "limit", "red", "--tokens-per-day", "-1"]).exit_code == 2
    assert run(app, ["projects", "limit", "red", "--no-limit", "speed"]).exit_code == 2
    done = run(app, ["projects", "limit", "blue", "--stored-bytes", "5"])
    assert done.exit_code == 1 and "no project 'blue'" in done.output


def test_a_gateway_goes_by_old_limits_for_a_moment_only(
    client: TestClient, red: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = upload(client)
    assert post_job(client, dataset).status_code == 201
    with transaction() as session:
        usage.change_limits(session, "default", {"tokens_per_day": 0})  # by another gateway
    assert post_job(client, dataset).status_code == 201
    now = time.monotonic() + limits.KNOWN_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert_problem(post_job(client, dataset), 429, "quota_exceeded")
