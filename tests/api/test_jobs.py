"""Jobs over HTTP: what is refused before anything is queued, pages, what can be asked of one."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from starlette.testclient import TestClient

from selftaught import tenancy
from selftaught.artifacts import publish_rows
from selftaught.database import get_engine, transaction
from selftaught.database.tables import Chunk, Iteration, Job, ModelVersion, Outbox, Stage
from selftaught.ids import new_id
from selftaught.work.kernel import JobFailure, Lease, Result
from tests.api.conftest import assert_problem
from tests.api.helpers import RECIPE, add_versions, post_job, upload, upload_labelled
from tests.work import helpers


def assert_nothing_queued() -> None:
    with transaction() as session:
        for table in (Job, Iteration, Chunk, Outbox):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_a_job_is_planned_in_the_transaction_that_makes_it(client: TestClient) -> None:
    dataset, labelled = upload(client), upload_labelled(client)
    answer = post_job(client, dataset, labelled_dataset=labelled, overrides={"seed": 7})
    assert answer.status_code == 201, answer.text
    out = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{out['id']}"
    assert out["model"] == "tiny" and out["labelled_dataset"] == labelled
    assert out["recipe"]["seed"] == 7 and out["recipe"]["validate"]["instructions"] == 2
    assert (out["current_iteration"], out["iterations_done"]) == (0, 0)
    assert client.get(answer.headers["location"]).json() == out
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Outbox)) == 1


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"dataset": "ds_none"}, 404, "dataset_not_found", "dataset"),
        ({"labelled_dataset": "ds_none"}, 404, "dataset_not_found", "labelled_dataset"),
        ({"recipe": "nope"}, 422, "unknown_recipe", "recipe"),
        ({"recipe": {"base_model": "nope"}}, 422, "unknown_base_model", "recipe.base_model"),
        (
            {"recipe": {"inference": "nope"}},
            422,
            "unknown_inference_endpoint",
            "recipe.inference",
        ),
        (
            {"recipe": {"judge": {"template": "nope"}}},
            422,
            "unknown_judge_template",
            "recipe.judge.template",
        ),
        (
            {"recipe": {"pair": {"template": "mt-bench"}}},
            422,
            "unknown_modify_template",
            "recipe.pair.template",
        ),
        (
            {"overrides": {"select": {"quotas": {"categories": {"nope": 5}}}}},
            422,
            "unknown_category",
            "recipe.select.quotas.categories",
        ),
        ({"overrides": {"seed": -1}}, 422, "invalid_recipe", "overrides.seed"),
        ({"recipe": {"judge": {"samples": 0}}}, 422, "invalid_recipe", "recipe.judge.samples"),
        (
            {"overrides": {"judge": {"need": "right"}, "curate": {"label": "random"}}},
            422,
            "invalid_recipe",
            "recipe",
        ),
        (
            {"overrides": {"validate": {"choose_on": "labelled"}}},
            422,
            "labelled_dataset_missing",
            "labelled_dataset",
        ),
        ({"overrides": {"jugde": {}}}, 422, "invalid_recipe", "overrides.jugde"),
        ({"overrides": {"validate": {"instructions": 5}}}, 422, "dataset_too_small", "dataset"),
        ({"model": "Bad Name"}, 422, "invalid_request", "model"),
        ({"datset": "x"}, 422, "invalid_request", "datset"),
        ({"recipe": 3}, 422, "invalid_request", None),
        ({"dataset": "a\0b"}, 422, "invalid_request", None),
        ({"overrides": {"name": "a\0b"}}, 422, "invalid_request", None),
        ({"overrides": {"\ud800": 1}}, 422, "invalid_request", None),
    ],
)
def test_bad_jobs_queue_nothing(
    client: TestClient, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    answer = post_job(client, **{"dataset": upload(client), **change})
    body = assert_problem(answer, status, code, param)
    assert_nothing_queued()
    if code.startswith("unknown_"):
        assert "'nope'; known: " in body["detail"] or "'mt-bench'; known: " in body["detail"]


def test_a_single_labelled_pair_cannot_choose_checkpoints(client: TestClient) -> None:
    dataset, labelled = upload(client), upload_labelled(client)
    overrides = {"validate": {"choose_on": "labelled"}}
    answer = post_job(client, dataset, labelled_dataset=labelled, overrides=overrides)
    assert_problem(answer, 422, "dataset_too_small", "labelled_dataset")
    assert_nothing_queued()


def test_every_wrong_setting_is_named(client: TestClient) -> None:
    recipe = {"judge": {"samples": 0}, "train": {"steps": "many"}, "extra": 1}
    body = assert_problem(post_job(client, upload(client), recipe=recipe), 422, "invalid_recipe")
    fields = {error["field"] for error in body["errors"]}
    assert fields == {"recipe.judge.samples", "recipe.train.steps", "recipe.extra"}


def test_datasets_of_the_wrong_kind(client: TestClient) -> None:
    plain, labelled = upload(client), upload_labelled(client)
    assert_problem(post_job(client, labelled), 422, "wrong_dataset_kind", "dataset")
    assert_problem(
        post_job(client, plain, labelled_dataset=plain),
        422,
        "wrong_dataset_kind",
        "labelled_dataset",
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"dataset": "x", "overrides": {"judge": {"sampling": {"temperature": Infinity}}}}',
        b'{"dataset": "x", "overrides": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
        b'{"dataset": "x", "overrides": {"seed": ' + b"9" * 5000 + b"}}",
        b'{"dataset": "\xff"}',
        b'{"dataset": ',
        b"[" * 5000,
        b"null",
        b"",
    ],
)
def test_json_that_nothing_can_store(client: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/jobs", content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert_problem(answer, answer.status_code, answer.json()["code"])


def test_cursor_pages_and_state_filter(client: TestClient) -> None:
    dataset = upload(client)
    ids = sorted((post_job(client, dataset).json()["id"] for _ in range(5)), reverse=True)
    client.post(f"/v1/jobs/{ids[1]}/cancel")
    seen: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = client.get("/v1/jobs", params={"limit": 2, **after}).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": seen[-1]}
    assert seen == ids
    cancelled = client.get("/v1/jobs", params={"state": "cancelled"}).json()["data"]
    assert [job["id"] for job in cancelled] == [ids[1]]


@pytest.mark.parametrize(
    "query", ["limit=100", "state=succeeded", "kind=batch", "model=tiny", "after={last}"]
)
def test_a_page_is_read_from_an_index(client: TestClient, query: str) -> None:
    """Nothing sorts all jobs, or makes a hash of them: neither is needed, so Postgres, told not to,
    does without (it would do so anyhow if there were no other way)."""
    last = post_job(client, upload(client)).json()["id"]
    asked: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, given: Any, *_: Any) -> None:
        asked.append((statement, given))

    event.listen(get_engine(), "before_cursor_execute", note)
    assert client.get(f"/v1/jobs?{query.format(last=last)}").status_code == 200
    event.remove(get_engine(), "before_cursor_execute", note)
    lists = [one for one in asked if "LIMIT" in one[0] and "FROM jobs" in one[0]]
    assert len(lists) == 1
    with tenancy.inside(tenancy.DEFAULT), transaction() as session:
        for how in ("seqscan", "bitmapscan", "sort"):
            session.execute(text(f"SET LOCAL enable_{how} = off"))
        raw = session.connection()
        for statement, given in lists:
            plan = [line for (line,) in raw.exec_driver_sql(f"EXPLAIN {statement}", given)]
            assert not [line for line in plan if "Sort" in line or "Seq Scan" in line], plan
        for table in ("iterations", "stages", "chunks", "events"):
            plan = [line for (line,) in raw.exec_driver_sql(f"EXPLAIN SELECT * FROM {table}")]
            assert not [line for line in plan if "hashed" in line], plan


def test_a_job_says_what_it_has_come_to(client: TestClient) -> None:
    """The version that the gate promoted last, against the seed; before it is scored, nothing."""
    dataset = upload(client)
    job, other = (post_job(client, dataset).json()["id"] for _ in range(2))
    add_versions("tiny", [0, 1, 2])
    gates = [(0, 0.4, True), (1, 0.6, True), (2, 0.7, False)]

    def results() -> list[Any]:
        rows = client.get("/v1/jobs").json()["data"]
        return [row["result"] for row in sorted(rows, key=lambda row: row["id"] != job)]

    assert results() == [None, None]
    assert client.get(f"/v1/jobs/{other}").json()["result"] is None
    for expected, gate in zip((0, 1, 1), gates, strict=True):
        add_gate(job, *gate)
        seed, best = gates[0], gates[expected]
        result = {
            "version": f"tiny:{expected}",
            "iteration": expected,
            "strict_accuracy": best[1],
            "seed_strict_accuracy": seed[1],
        }
        assert results() == [result, None]
        assert client.get(f"/v1/jobs/{job}").json()["result"] == result


def add_gate(job: str, number: int, accuracy: float, promoted: bool) -> None:
    """An iteration whose gate has found this about the version of its number."""
    with transaction() as session:
        made = select(Iteration).where(Iteration.job_id == job, Iteration.number == number)
        iteration = session.scalar(made)
        if iteration is None:
            iteration = Iteration(id=new_id("it"), job_id=job, number=number, state="succeeded")
            session.add(iteration)
        version = select(ModelVersion.id).where(ModelVersion.number == number)
        iteration.version_id = session.scalars(version).one()
        session.flush()
        stage = Stage(id=new_id("st"), job_id=job, iteration_id=iteration.id, kind="gate")
        stage.state, stage.position, stage.chunks = "succeeded", 9, 1
        stage.metrics = {"heldout": {"n": 10, "strict_accuracy": accuracy}, "promoted": promoted}
        session.add(stage)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "state=odd"])
def test_bad_page_parameters(client: TestClient, query: str) -> None:
    assert_problem(client.get(f"/v1/jobs?{query}"), 422, "invalid_request", query.split("=")[0])


def test_cancel_then_cancel_again(client: TestClient) -> None:
    job = post_job(client, upload(client)).json()["id"]
    answer = client.post(f"/v1/jobs/{job}/cancel")
    assert answer.status_code == 202 and answer.json()["state"] == "cancelled"
    assert answer.json()["cancel_requested_at"] and answer.json()["finished_at"]
    assert_problem(client.post(f"/v1/jobs/{job}/cancel"), 409, "job_finished")
    assert_problem(client.post("/v1/jobs/job_none/cancel"), 404, "job_not_found")


def test_pause_and_resume_a_job(client: TestClient) -> None:
    job = post_job(client, upload(client)).json()["id"]
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job}/pause")
        assert answer.status_code == 202 and answer.json()["state"] == "paused"
        assert answer.json()["paused_at"]
    assert client.get("/v1/jobs", params={"state": "paused"}).json()["data"][0]["id"] == job
    metrics = client.get("/metrics").text
    assert 'selftaught_jobs{state="paused"} 1.0' in metrics
    assert 'selftaught_ready_chunks{queue="trainer"} 0.0' in metrics, "no worker is missing"
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job}/resume")
        assert answer.status_code == 202 and answer.json()["state"] == "running"
        assert answer.json()["paused_at"] is None
    said = [event["type"] for event in client.get(f"/v1/jobs/{job}/events").json()["data"]]
    assert said[-3:] == ["job.pausing", "job.paused", "job.resumed"]
    client.post(f"/v1/jobs/{job}/cancel")
    for what in ("pause", "resume", "retry"):
        assert_problem(client.post(f"/v1/jobs/{job}/{what}"), 409, "job_finished")
        assert_problem(client.post(f"/v1/jobs/job_none/{what}"), 404, "job_not_found")


def test_retry_a_failed_job(client: TestClient) -> None:
    job = post_job(client, upload(client)).json()["id"]
    assert client.post(f"/v1/jobs/{job}/retry").json()["retried_at"] is None, "it is going on"
    helpers.drain(job, helpers.with_run("register", broken))
    assert client.get(f"/v1/jobs/{job}").json()["error"]["code"] == "broken"
    answer = client.post(f"/v1/jobs/{job}/retry")
    assert answer.status_code == 202, answer.text
    out = answer.json()
    assert (out["state"], out["error"], out["finished_at"]) == ("running", None, None)
    assert out["retried_at"]
    helpers.drain(job, helpers.with_run("select", nothing))
    assert_problem(client.post(f"/v1/jobs/{job}/retry"), 409, "nothing_to_retry")


def broken(_lease: Lease) -> Result:
    raise JobFailure("broken", "Broken", "as asked")


def nothing(lease: Lease) -> Result:
    rows = [{"id": "0", "instruction": "one row is fewer than are held out"}]
    return Result(artifact=publish_rows("selection", lease.path("select"), rows))


def test_a_failed_job_carries_its_problem(client: TestClient) -> None:
    job = post_job(client, upload(client)).json()["id"]
    error = {"title": "Lost", "code": "worker_lost", "fault": "system", "detail": "three times"}
    with transaction() as session:
        row = session.get_one(Job, job)
        row.state, row.error = "failed", error
    out = client.get(f"/v1/jobs/{job}").json()["error"]
    assert {key: out[key] for key in error} == error


def test_iterations_show_what_stages_counted(client: TestClient) -> None:
    job = post_job(client, upload(client)).json()["id"]
    with transaction() as session:
        iteration = session.scalars(select(Iteration)).one()
        stages: list[tuple[str, dict[str, int], dict[str, Any]]] = [
            ("pair", {"pairs": 10, "tokens": 100}, {}),
            ("judge", {"judgments_sampled": 200, "tokens": 1000}, {}),
            ("curate", {"judgments_kept": 50}, {}),
            ("train", {"train_tokens": 7}, {"loss": 0.5}),
            ("gate", {}, {"heldout": {"strict_accuracy": 0.75}}),
        ]
        for position, (kind, counts, metrics) in enumerate(stages, start=5):
            row = Stage(
                id=f"st_{kind}", job_id=job, iteration_id=iteration.id, kind=kind, chunks=1,
                position=position, state="succeeded", counts=counts, metrics=metrics,
            )  # fmt: skip
            session.add(row)
    (out,) = client.get(f"/v1/jobs/{job}/iterations").json()["data"]
    assert out["kept_share"] == 0.25 and out["tokens"] == 1107
    assert out["counts"]["pairs"] == 10
    assert out["metrics"]["heldout"] == {"strict_accuracy": 0.75}
    assert out["metrics"]["train"] == {"loss": 0.5}
    kinds = [stage["kind"] for stage in out["stages"]]
    assert kinds == ["register", "pair", "judge", "curate", "train", "gate"]
    assert out["seconds"] > 0 and out["model_version"] is None
    one = client.get(f"/v1/iterations/{out['id']}").json()
    assert one["counts"] == out["counts"]
    assert_problem(client.get("/v1/iterations/it_none"), 404, "iteration_not_found")
    assert_problem(client.get("/v1/jobs/job_none/iterations"), 404, "job_not_found")


def test_a_running_stage_shows_the_counts_of_its_chunks(client: TestClient) -> None:
    job = post_job(client, upload(client)).json()["id"]
    with transaction() as session:
        session.scalars(select(Chunk)).one().counts = {"tokens": 12}
    (out,) = client.get(f"/v1/jobs/{job}/iterations").json()["data"]
    assert out["state"] == "running" and out["tokens"] == 12
    assert out["stages"][0]["counts"] == {"tokens": 12}


def test_a_named_recipe_and_the_one_of_the_recipe_list(client: TestClient) -> None:
    listed = client.get("/v1/recipes").json()["data"]
    for recipe in listed:
        assert client.get(f"/v1/recipes/{recipe['name']}").json() == recipe
        assert recipe["judge"]["samples"] >= 1 and "validate" in recipe
    assert_problem(client.get("/v1/recipes/nope"), 404, "recipe_not_found")
    assert RECIPE["name"] not in [recipe["name"] for recipe in listed]


def test_jobs_of_one_model(client: TestClient) -> None:
    dataset = upload(client)
    made = [post_job(client, dataset, model=model).json() for model in ("a", "b", "a")]
    assert made[0]["progress"] | {"eta_basis": ""} == {
        "share": 0.0,
        "iteration": 0,
        "iterations": 1,
        "stage": "register",
        "chunks": 1,
        "chunks_done": 0,
        "eta_seconds": None,
        "eta_basis": "",
    }
    page = client.get("/v1/jobs", params={"model": "a", "limit": 1}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == ([made[2]["id"]], True)
    after = {"model": "a", "after": made[2]["id"]}
    page = client.get("/v1/jobs", params=after).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == ([made[0]["id"]], False)
    assert client.get("/v1/jobs", params={"model": "none"}).json()["data"] == []
