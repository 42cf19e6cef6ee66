"""Downloads: what a stage published, whole and in order, as JSONL and as Parquet."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from selftaught.artifacts import publish_rows
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler
from tests.api.conftest import assert_problem
from tests.work import helpers

NESTED = {"prompt": [{"role": "user", "content": "größer \u2028 😀"}], "label": "A"}


def rows_of(lease: Lease) -> list[dict[str, Any]]:
    """600 rows, so that fields which only late rows have are in no first batch."""
    position = int(lease.chunk_id.rpartition(".")[2])
    return [
        {"n": f"{position}.{i}", "late": None if i < 500 else [i], **(NESTED if i % 2 else {})}
        for i in range(600)
    ]


def run_pair(lease: Lease) -> Result:
    published = publish_rows("pairs", lease.path("pair"), rows_of(lease))
    dropped = publish_rows("dropped", lease.path("pair_dropped"), [{"id": "x", "reason": "equal"}])
    return Result(artifact=published, side_artifacts=(dropped,))


@pytest.fixture
def job(client: TestClient) -> str:
    """A finished job whose pair stage has several chunks."""
    name = helpers.make_job()
    handlers = {**helpers.HANDLERS, "pair": Handler(run_pair)}
    handlers["curate"] = Handler(lambda lease: Result(
        artifact=publish_rows("examples", lease.path("curate"), [NESTED]),
        side_artifacts=(publish_rows("preferences", lease.path("preferences"), []),),
    ))  # fmt: skip
    helpers.drain(name, handlers)
    assert helpers.job(name).state == "succeeded"
    return name


def test_chunks_are_joined_in_order(client: TestClient, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/data/1/pair")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert f"{job}-1-pair.jsonl" in answer.headers["content-disposition"]
    rows = [json.loads(line) for line in answer.text.split("\n") if line]
    assert [row["n"] for row in rows] == [f"{c}.{i}" for c in range(4) for i in range(600)]


def test_parquet_holds_the_same_rows(client: TestClient, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/data/1/pair?format=parquet")
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    found = pq.read_table(io.BytesIO(answer.content)).to_pylist()
    lines = client.get(f"/v1/jobs/{job}/data/1/pair").text.split("\n")
    rows = [{"prompt": None, "label": None, **json.loads(line)} for line in lines if line]
    assert found == rows


def test_nothing_but_fields_is_a_parquet_file_too(client: TestClient, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/data/1/preferences?format=parquet")
    assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0
    assert client.get(f"/v1/jobs/{job}/data/1/preferences").content == b""


def test_the_tag_saves_a_second_download(client: TestClient, job: str) -> None:
    url = f"/v1/jobs/{job}/data/1/curate"
    tag = client.get(url).headers["etag"]
    again = client.get(url, headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{url}?format=parquet").headers["etag"] != tag


def test_the_list_says_what_there_is(client: TestClient, job: str) -> None:
    data = client.get(f"/v1/jobs/{job}/data").json()["data"]
    there = {(one["iteration"], one["name"]): one for one in data}
    pairs = there[1, "pair"]
    assert (pairs["kind"], pairs["rows"], len(pairs["files"])) == ("pairs", 2400, 4)
    assert there[1, "pair_dropped"]["rows"] == 4 and (0, "select") in there
    assert client.get(pairs["url"]).status_code == 200


def test_a_manifest_says_where_the_data_came_from(client: TestClient, job: str) -> None:
    found = client.get(f"/v1/jobs/{job}/data/1").json()
    assert found["judge"] == f"{job}:0" and found["version"] == f"{job}:1"
    assert found["dataset"]["sha256"] and found["template"]["name"] == "mt-bench"
    assert found["counts"]["judge_rows"] == 16 and found["recipe"]["name"] == "kernel-test"
    assert {one["name"] for one in found["data"]} >= {"pair", "curate", "preferences"}
    assert found == client.get(f"/v1/jobs/{job}/data/1").json()


def test_what_is_not_there(client: TestClient, job: str) -> None:
    body = assert_problem(client.get(f"/v1/jobs/{job}/data/1/poems"), 404, "no_such_data", "name")
    assert "pair_dropped" in body["detail"]
    missing = client.get(f"/v1/jobs/{job}/data/0/preferences")
    assert "curate.preferences" in assert_problem(missing, 404, "no_such_data")["detail"]
    assert_problem(client.get(f"/v1/jobs/{job}/data/9/pair"), 404, "iteration_not_found")
    assert_problem(client.get("/v1/jobs/job_no/data"), 404, "job_not_found")
    assert_problem(client.get("/v1/jobs/job_%25/data/1/pair"), 404, "job_not_found")
    assert client.get(f"/v1/jobs/{job}/data/1/..%2f..%2fpair").status_code == 404


def test_a_running_stage_has_nothing_to_take_away_yet(client: TestClient) -> None:
    job = helpers.make_job()
    helpers.drain(job, until="judge")
    assert client.get(f"/v1/jobs/{job}/data/1/pair").status_code == 200
    assert_problem(client.get(f"/v1/jobs/{job}/data/1/judge"), 409, "not_finished")
    assert_problem(client.get(f"/v1/jobs/{job}/data/1"), 409, "not_finished")
