"""Batches over HTTP, and the worker's handler with an engine that prefers whatever says "good"."""

from __future__ import annotations

import gzip
import json
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from selftaught import aliases
from selftaught.contracts import BatchResult, Problem
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Job, ModelVersion
from selftaught.settings import get_settings
from selftaught.work import kernel, pipeline, planning, relay
from selftaught.work.worker import Handler, run_one
from services.api import batches
from services.evaluator import judge as service
from services.evaluator import tasks
from services.evaluator.main import create_app
from tests.api.conftest import assert_problem
from tests.api.helpers import upload
from tests.api.test_evaluator import Engine

URL = "/v1/judge/batches"
JSONL = {"content-type": "application/x-ndjson"}
HANDLERS = {"judge_batch": Handler(tasks.judge_batch)}


def line(number: int, **more: Any) -> dict[str, Any]:
    good, bad = f"good {number}", f"bad {number}"
    pair = {"instruction": f"i {number}", "response_a": good, "response_b": bad}
    return {**pair, **more}


def jsonl(*lines: Any) -> bytes:
    return b"\n".join(orjson.dumps(one) for one in lines)


def send(client: TestClient, content: bytes, query: str = "") -> Any:
    return client.post(URL + query, content=content, headers=JSONL)


def create(client: TestClient, lines: int, query: str = "") -> dict[str, Any]:
    answer = send(client, jsonl(*(line(i) for i in range(1, lines + 1))), query)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def results(client: TestClient, batch: str, after: int = 0) -> list[dict[str, Any]]:
    answer = client.get(f"{URL}/{batch}/results", params={"after": after})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(row) for row in answer.text.splitlines()]


def chunks(batch: str) -> list[str]:
    with transaction() as session:
        return list(
            session.scalars(select(Chunk.id).where(Chunk.job_id == batch).order_by(Chunk.position))
        )


def work(*names: str) -> None:
    for name in names:
        assert run_one(name, "test", HANDLERS)


def assert_nothing_left() -> None:
    assert [path for path in get_settings().artifacts_dir.rglob("*") if path.is_file()] == []
    with transaction() as session:
        for table in (Job, Artifact, Chunk):
            assert session.scalar(select(func.count()).select_from(table)) == 0


@pytest.fixture(autouse=True)
def engine(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Two versions of m, of which 1 is the latest; chunks of four lines."""
    with transaction() as session:
        for number in (0, 1):
            session.add(
                ModelVersion(
                    id=f"ver_{number}", model="m", number=number, path="x", sha256="x",
                    lineage={
                        "template": {"name": "mt-bench"},
                        "inference": "local",
                        "judge_max_tokens": 77,
                        "judge_sampling": {"temperature": 0.5, "max_tokens": 9},
                    },
                )
            )  # fmt: skip
        session.flush()
        aliases.move(session, "m", "latest", 1, "test")
    found = Engine()
    monkeypatch.setattr(tasks, "open_version", lambda version, job_id: found)
    monkeypatch.setattr(service, "open_version", lambda version, patience: found)
    monkeypatch.setattr(planning, "BATCH_CHUNK", 4)
    monkeypatch.setattr(batches, "LEAST_LINES", 2)
    return found


def test_a_batch_from_upload_to_results(client: TestClient) -> None:
    sent = [
        line(1, custom_id="eins"),
        line(2, response_a="bad", response_b="good", rubric="r"),
        {**line(3), "instruction": None, "messages": [{"role": "user", "content": "u"}]},
        *(line(i) for i in range(4, 7)),
    ]
    answer = send(client, jsonl(*sent[:3]) + b"\n\n" + jsonl(*sent[3:]), "?explain=true")
    assert answer.status_code == 201, answer.text
    out = answer.json()
    assert client.get(answer.headers["location"]).json() == out
    assert (out["state"], out["model"], out["template"]) == ("in_progress", "m:1", "mt-bench")
    assert out["request_counts"] == {"total": 6, "completed": 0, "failed": 0}
    assert results(client, out["id"]) == []
    with transaction() as session:
        aliases.move(session, "m", "latest", 0, "test")

    work(*chunks(out["id"]))
    found = results(client, out["id"])
    assert [(one["custom_id"], one["line"]) for one in found] == [
        ("eins", 1), ("2", 2), ("3", 3), ("5", 5), ("6", 6), ("7", 7)
    ]  # fmt: skip
    assert [one["result"]["verdict"] for one in found] == ["A", "B", "A", "A", "A", "A"]
    assert {one["result"]["model"] for one in found} == {"m:1"}, "pinned when it was created"
    assert all(one["error"] is None and one["result"]["orders"][0]["reasoning"] for one in found)
    for one in found:
        BatchResult.model_validate(one)
    ended = client.get(f"{URL}/{out['id']}").json()
    assert ended["state"] == "completed" and ended["completed_at"] and ended["in_progress_at"]
    assert not ended["failed_at"] and not ended["cancelled_at"] and not ended["cancelling_at"]
    assert ended["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
    assert ended["verdicts"] == {"A": 5, "B": 1, "tie": 0, "unparsable": 0}
    assert ended["usage"] == {"prompt_tokens": 120, "completion_tokens": 36}


def test_a_line_gets_what_judge_answers(client: TestClient, engine: Engine) -> None:
    asked = [line(1, reference="ref", rubric="rub"), line(2), line(3, response_a="bad good")]
    query = "?votes=3&both_orders=true&explain=true&template=verdict-only"
    batch = send(client, jsonl(*asked), query).json()["id"]
    work(*chunks(batch))
    requests = [one for call in engine.asked for one in call[0]]
    sampling = {json.dumps(call[1].model_dump()) for call in engine.asked}
    engine.asked.clear()
    options = {"votes": 3, "explain": True, "template": "verdict-only"}
    with TestClient(create_app(), "http://localhost") as evaluator:
        for row, question in zip(results(client, batch), asked, strict=True):
            said = evaluator.post("/judge", json={**question, **options}).json()
            assert {key: said[key] for key in row["result"]} == row["result"]
    assert [one for call in engine.asked for one in call[0]] == requests, "and is asked the same"
    assert {json.dumps(call[1].model_dump()) for call in engine.asked} == sampling


def test_a_line_that_is_too_long_does_not_stop_the_others(
    client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = create(client, 3)["id"]
    generate = engine.generate

    def rejecting(requests: Any, sampling: Any) -> Any:
        found = generate(requests, sampling)
        found[3][0] = type(found[3][0])("", "rejected", 0, 0)  # of line 2, the second order
        return found

    monkeypatch.setattr(engine, "generate", rejecting)
    work(*chunks(batch))
    first, second, third = results(client, batch)
    assert first["result"] and third["result"] and second["result"] is None
    problem = Problem.model_validate(second["error"])
    assert (problem.code, problem.status) == ("too_long", 422) and "m:1" in str(problem.detail)
    out = client.get(f"{URL}/{batch}").json()
    assert out["state"] == "completed"
    assert out["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert out["usage"]["completion_tokens"] == 15, "what was written for it was written"


def test_results_of_a_running_batch_have_no_gaps_and_can_be_gone_on_with(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FILES_AT_ONCE", 2)
    batch = create(client, 22)["id"]
    names = chunks(batch)
    assert len(names) == 6
    work(names[0], names[2])
    seen = results(client, batch)
    assert [one["line"] for one in seen] == [1, 2, 3, 4], "line 5 is still open"
    work(names[1])
    for after in (0, 3, 4, 11):
        assert [one["line"] for one in results(client, batch, after)] == [*range(after + 1, 13)]
    assert results(client, batch, after=12) == []
    assert client.get(f"{URL}/{batch}").json()["request_counts"]["completed"] == 12
    work(*names[3:])
    assert [one["line"] for one in results(client, batch)] == [*range(1, 23)]
    assert [one["line"] for one in results(client, batch, after=21)] == [22]
    assert results(client, batch, after=22) == results(client, batch, after=2**40) == []


def test_a_batch_is_paused_and_goes_on_as_every_job_is(client: TestClient) -> None:
    batch = create(client, 12)["id"]
    first, second, third = chunks(batch)
    lease = kernel.claim(first, "test")
    assert lease is not None
    assert client.post(f"/v1/jobs/{batch}/pause").status_code == 202
    assert client.get(f"{URL}/{batch}").json()["state"] == "pausing"
    assert kernel.finish(lease, tasks.judge_batch(lease)), "what was being finished counts"
    assert client.get(f"{URL}/{batch}").json()["state"] == "paused"
    assert not run_one(second, "test", HANDLERS)
    assert [one["line"] for one in results(client, batch)] == [1, 2, 3, 4]
    assert client.post(f"/v1/jobs/{batch}/resume").status_code == 202
    assert client.get(f"{URL}/{batch}").json()["state"] == "in_progress"
    work(second, third)
    assert client.get(f"{URL}/{batch}").json()["state"] == "completed"


def test_cancel_keeps_what_is_finished(client: TestClient) -> None:
    batch = create(client, 12)["id"]
    first, second, third = chunks(batch)
    work(second)
    lease = kernel.claim(first, "test")
    assert lease is not None
    out = client.post(f"{URL}/{batch}/cancel")
    assert (out.status_code, out.json()["state"]) == (202, "cancelling")
    assert out.json()["cancelling_at"]
    assert client.post(f"{URL}/{batch}/cancel").json()["state"] == "cancelling"
    assert not kernel.renew(lease), "its worker is told"
    assert not kernel.finish(lease, tasks.judge_batch(lease)), "and too late"
    out = client.get(f"{URL}/{batch}").json()
    assert out["state"] == "cancelled" and out["cancelled_at"]
    assert not run_one(third, "test", HANDLERS)
    assert [one["line"] for one in results(client, batch)] == [5, 6, 7, 8]
    assert out["request_counts"] == {"total": 12, "completed": 4, "failed": 0}
    assert_problem(client.post(f"{URL}/{batch}/cancel"), 409, "batch_finished")
    assert len(list((get_settings().artifacts_dir / "jobs").rglob("*.jsonl"))) == 1


def test_a_cancelled_chunk_does_not_ask(client: TestClient, engine: Engine) -> None:
    batch = create(client, 1)["id"]
    lease = kernel.claim(*chunks(batch), "test")
    assert lease is not None
    lease.lost.set()  # what the heartbeat does
    with pytest.raises(kernel.LeaseLost):
        tasks.judge_batch(lease)
    assert engine.asked == []


def test_a_worker_that_is_lost_costs_no_line_and_doubles_none(client: TestClient) -> None:
    batch = create(client, 8)["id"]
    first, second = chunks(batch)
    dead = kernel.claim(first, "killed")
    assert dead is not None
    late = tasks.judge_batch(dead)
    with transaction() as session:
        gone = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 1)
        session.execute(update(Chunk).where(Chunk.id == first).values(lock_expires_at=gone))
    assert kernel.reap() == 1
    work(first, second)
    assert not kernel.finish(dead, late), "it comes back with a result that another one has given"
    assert [one["line"] for one in results(client, batch)] == [*range(1, 9)]
    counts = client.get(f"{URL}/{batch}").json()["request_counts"]
    assert counts == {"total": 8, "completed": 8, "failed": 0}


def test_a_failed_batch_says_why_and_keeps_its_results(client: TestClient, engine: Engine) -> None:
    batch = create(client, 8)["id"]
    first, second = chunks(batch)
    work(first)
    lease = kernel.claim(second, "test")
    assert lease is not None
    problem = Problem(title="Refused", code="endpoint_refused", detail="no key", fault="user")
    kernel.fail(lease, problem, retry=False)
    out = client.get(f"{URL}/{batch}").json()
    assert (out["state"], out["error"]["code"]) == ("failed", "endpoint_refused")
    assert out["failed_at"] and not out["completed_at"]
    assert [one["line"] for one in results(client, batch)] == [1, 2, 3, 4]


def test_chunks_are_announced_in_order_a_few_at_a_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ANNOUNCED", 3)
    batch = create(client, 52)["id"]
    names = chunks(batch)
    sent: list[str] = []

    class App:
        def send_task(self, name: str, args: list[str], queue: str, headers: object) -> None:
            sent.append(args[0])

    apps: Any = {"evaluator": App()}
    relay.send_pending(apps)
    assert sent == names[:3] and relay.send_pending(apps) == 0
    lease = kernel.claim(names[0], "killed")
    assert lease is not None
    kernel.fail(lease, Problem(title="t", code="c", detail="d"), retry=True)
    work(names[1], names[2])
    while new := relay.send_pending(apps):
        work(*sent[-new:])
    told = "what is tried again does not wait for the end"
    assert sent == [*names[:3], names[0], *names[3:]], told
    assert client.get(f"{URL}/{batch}").json()["state"] == "completed"


BAD: list[tuple[Any, str | None]] = [
    ({"instruction": "i", "response_a": "a"}, "response_b"),
    (line(1, response_a=5), "response_a"),
    (line(1, votes=3), "votes"),
    (line(1, messages=[{"role": "user", "content": "u"}]), None),
    ({"response_a": "a", "response_b": "b"}, None),
    (line(1, instruction=""), "instruction"),
    (line(1, custom_id=""), "custom_id"),
    (line(1, custom_id=7), "custom_id"),
    (line(1, custom_id="x" * 201), "custom_id"),
    (line(1, custom_id="1"), "custom_id"),
    (
        {"messages": [{"role": "x", "content": ""}], "response_a": "", "response_b": ""},
        "messages.0.role",
    ),
    ([1], None),
    ("text", None),
]


@pytest.mark.parametrize(("bad", "field"), BAD)
def test_a_bad_line_is_named_and_nothing_is_kept(
    client: TestClient, bad: Any, field: str | None
) -> None:
    answer = send(client, jsonl(line(1), line(2), bad, line(4)))
    body = assert_problem(answer, 422, "invalid_batch")
    assert [(one["line"], one["field"]) for one in body["errors"]] == [(3, field)]
    assert_nothing_left()


def test_all_bad_lines_are_reported_at_once(client: TestClient) -> None:
    twice = line(9, custom_id="x")
    content = b"\n".join(
        [jsonl(line(1)), b"{", b"\xff", jsonl(twice, {**twice, "response_a": None}), b"NaN"]
    )
    body = assert_problem(send(client, content), 422, "invalid_batch")
    found = [(one["line"], one["field"]) for one in body["errors"]]
    assert found == [(2, None), (3, None), (5, "custom_id"), (5, "response_a"), (6, None)]
    assert "line 4" in body["errors"][2]["message"]
    many = assert_problem(send(client, b"{}\n" * 300), 422, "invalid_batch")
    assert len(many["errors"]) == 100 and many["detail"].startswith("600 errors")
    assert_nothing_left()


@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"", mtime=0)])
def test_an_empty_batch_is_refused(client: TestClient, content: bytes) -> None:
    assert_problem(send(client, content), 422, "invalid_batch", "file")
    assert_nothing_left()


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?model=m:7", 404, "unknown_model"),
        ("?model=none", 404, "unknown_model"),
        ("?template=nope", 422, "unknown_judge_template"),
        ("?template=rating", 422, "unknown_judge_template"),
        ("?votes=0", 422, "invalid_request"),
        ("?votes=65", 422, "invalid_request"),
        ("?both_orders=maybe", 422, "invalid_request"),
        ("?vote=1", 422, "invalid_request"),
    ],
)
def test_bad_options_are_refused(client: TestClient, query: str, status: int, code: str) -> None:
    assert_problem(send(client, jsonl(line(1)), query), status, code)
    assert_nothing_left()


def test_gzip_and_its_limits(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    content = jsonl(*(line(i) for i in range(1, 30)))
    packed = gzip.compress(content)
    assert_problem(send(client, packed[:-9]), 422, "invalid_batch", "file")
    assert_nothing_left()
    monkeypatch.setattr(get_settings(), "max_upload_bytes", len(content) - 1)
    assert_problem(send(client, packed), 413, "unpacked_too_large")
    assert_problem(send(client, content), 413, "body_too_large")
    assert_nothing_left()
    monkeypatch.setattr(get_settings(), "max_upload_bytes", len(content))
    assert send(client, packed).json()["request_counts"]["total"] == 29


def test_a_long_line_is_refused_and_a_long_body_is_not(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = jsonl(*(line(i, rubric="r" * 90_000) for i in range(1, 60)))
    assert len(content) > 5_000_000, "more than other bodies may have"
    assert send(client, content).status_code == 201
    monkeypatch.setattr(get_settings(), "max_row_bytes", 80_000)
    body = assert_problem(send(client, content), 422, "invalid_batch")
    assert len(body["errors"]) == 59 and "longer than" in body["errors"][0]["message"]


@pytest.mark.parametrize("media", ["application/json", "multipart/form-data; boundary=x", ""])
def test_other_bodies_are_refused(client: TestClient, media: str) -> None:
    answer = client.post(URL, content=jsonl(line(1)), headers={"content-type": media})
    assert_problem(answer, 415, "unsupported_format")
    assert_nothing_left()


def test_the_header_names_a_model_where_the_query_does_not(client: TestClient) -> None:
    for query, model in (("", "m:0"), ("?model=m:1", "m:1")):
        headers = {**JSONL, "selftaught-model": "m:0"}
        answer = client.post(URL + query, content=jsonl(line(1)), headers=headers)
        assert answer.json()["model"] == model


def test_many_votes_make_small_chunks(client: TestClient) -> None:
    assert len(chunks(create(client, 8, "?votes=2")["id"])) == 4
    assert len(chunks(create(client, 8, "?votes=64")["id"])) == 4


def test_pages_of_batches(client: TestClient) -> None:
    made = [create(client, 1)["id"] for _ in range(3)]
    first = client.get(URL, params={"limit": 2}).json()
    assert [one["id"] for one in first["data"]] == made[:0:-1] and first["has_more"]
    rest = client.get(URL, params={"after": made[1]}).json()
    assert [one["id"] for one in rest["data"]] == made[:1] and not rest["has_more"]


def test_a_batch_is_a_job(client: TestClient) -> None:
    batch = create(client, 1)["id"]
    job = client.get(f"/v1/jobs/{batch}").json()
    assert (job["kind"], job["model"], job["dataset"]) == ("batch", "m", None)
    work(*chunks(batch))
    events = client.get(f"/v1/jobs/{batch}/events").json()["data"]
    assert [one["type"] for one in events][:2] == ["job.created", "iteration.started"]
    assert events[-1]["type"] == "job.succeeded"
    (iteration,) = client.get(f"/v1/jobs/{batch}/iterations").json()["data"]
    assert (iteration["counts"]["completed"], iteration["tokens"]) == (1, 6)
    (data,) = client.get(f"/v1/jobs/{batch}/data").json()["data"]
    assert data["rows"] == 1 and client.get(data["url"]).status_code == 200
    assert [one["id"] for one in client.get("/v1/jobs?kind=batch").json()["data"]] == [batch]


def test_jobs_of_all_kinds_are_listed_newest_first(client: TestClient) -> None:
    made = []
    for _ in range(2):
        made.append(create(client, 1)["id"])
        body = {"dataset": upload(client, 9), "recipe": {"name": "t"}, "overrides": {}}
        body["overrides"] = {"validate": {"instructions": 2}}
        made.append(client.post("/v1/jobs", json=body).json()["id"])
    page = client.get("/v1/jobs", params={"limit": 3}).json()
    assert [one["id"] for one in page["data"]] == made[:0:-1]
    rest = client.get("/v1/jobs", params={"after": made[1]}).json()
    assert [one["id"] for one in rest["data"]] == made[:1]


@pytest.mark.parametrize("path", ["", "/results", "/cancel"])
def test_what_is_no_batch_is_not_found(client: TestClient, path: str) -> None:
    body = {"base_model": "smallworld", "template": "smallworld"}
    job = client.post("/v1/models", json=body).json()["id"]
    for name in ("batch_no", job):
        method = "POST" if path == "/cancel" else "GET"
        assert_problem(client.request(method, f"{URL}/{name}{path}"), 404, "batch_not_found")


def test_a_result_file_that_is_gone_is_a_problem_not_half_an_answer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selftaught.store import StoreUnavailable

    batch = create(client, 1)["id"]
    work(*chunks(batch))

    def away(path: str) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr("selftaught.artifacts.resolve", away)
    answer = client.get(f"{URL}/{batch}/results")
    assert_problem(answer, 503, "artifact_store_unavailable")


def test_nothing_is_left_when_the_rows_cannot_be_written(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(pipeline, "start_job", fail)
    assert_problem(send(client, jsonl(line(1))), 500, "internal_error")
    assert_nothing_left()


def test_the_document_describes_lines_and_results(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    post = schema["paths"][URL]["post"]
    (media,) = post["requestBody"]["content"].values()
    for one in media["example"].splitlines():
        batches.BatchLine.model_validate_json(one)
    answer = schema["paths"][URL + "/{batch_id}/results"]["get"]["responses"]["200"]
    assert list(answer["content"]) == ["application/x-ndjson"]
    assert answer["content"]["application/x-ndjson"]["schema"]["$ref"].endswith("/BatchResult")
