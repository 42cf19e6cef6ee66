"""Benchmarks, evaluations, registrations and templates over HTTP: what is planned or refused."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from selftaught import jsonl
from selftaught.artifacts import resolve
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Dataset, Job, ModelVersion
from selftaught.judging import parse_template
from tests.api.conftest import assert_problem
from tests.api.helpers import RECIPE, post_job, upload, upload_labelled

LLMBAR = [
    {"input": "Name a colour.", "output_1": "Red.", "output_2": "Seven.", "label": 1},
    {"input": "Name a number.", "output_1": "Red.", "output_2": "Seven.", "label": 2, "more": 0},
]
TEMPLATE: dict[str, Any] = {
    "name": "ours",
    "kind": "judge",
    "user": "{instruction} {response_a} {response_b}",
    "verdicts": {"A": "<1>", "B": "<2>"},
}


def send(client: TestClient, content: bytes, query: str = "") -> Any:
    headers = {"content-type": "application/json"}
    url = f"/v1/datasets?kind=benchmark{query}"
    return client.post(url, content=content, headers=headers)


def version(number: int = 0) -> None:
    with transaction() as session:
        session.add(
            ModelVersion(
                id=f"ver_{number}", model="m", number=number, path="x", sha256="x",
                lineage={
                    "template": {"name": "mt-bench"}, "inference": "local",
                    "judge_max_tokens": 77, "judge_sampling": {"temperature": 0.5},
                },
            )
        )  # fmt: skip


def nothing_is_left() -> bool:
    with transaction() as session:
        counts = [session.scalar(select(func.count()).select_from(t)) for t in (Dataset, Artifact)]
    return counts == [0, 0]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_benchmark_is_recognised_by_its_fields(client: TestClient, pack: Any) -> None:
    out = send(client, pack(json.dumps(LLMBAR).encode())).json()
    assert (out["kind"], out["benchmark"], out["rows"]) == ("benchmark", "llmbar", 2)
    with transaction() as session:
        (path,) = session.scalars(select(Artifact.path))
    assert [row["truth"] for row in jsonl.read(resolve(path))] == ["A", "B"]


@pytest.mark.parametrize(
    ("content", "line", "field"),
    [
        (json.dumps([LLMBAR[0], {"input": "i", "output_1": "a", "label": 1}]), 2, "output_2"),
        (json.dumps([{**LLMBAR[0], "label": "1"}]), 1, "label"),
        ('{"input": "i", "output_1": "a", "output_2": "b", "label": 1}\n{"input"', 2, None),
        ("[1]", 1, None),
        ('[{"a": 1}]', 1, None),
        ("", 1, None),
        ("[", 1, None),
    ],
)
def test_a_bad_benchmark_gets_one_error_with_row_and_field(
    client: TestClient, content: str, line: int, field: str | None
) -> None:
    body = assert_problem(send(client, content.encode()), 422, "invalid_dataset")
    assert [(error["line"], error["field"]) for error in body["errors"]] == [(line, field)]
    assert nothing_is_left()


def test_half_a_gzip_file_is_refused(client: TestClient) -> None:
    content = gzip.compress(json.dumps(LLMBAR).encode())[:-12]
    assert_problem(send(client, content), 422, "invalid_dataset")
    assert nothing_is_left()


def test_a_benchmark_can_be_named_and_unknown_names_are_refused(client: TestClient) -> None:
    rows = b'{"prompt": "p", "chosen": "a", "rejected": "b"}'
    assert send(client, rows, "&benchmark=pairs").json()["benchmark"] == "pairs"
    assert_problem(send(client, rows, "&benchmark=x"), 422, "unknown_benchmark", "benchmark")
    wrong = send(client, rows, "&benchmark=llmbar")
    assert_problem(wrong, 422, "invalid_dataset", "input")


def test_an_evaluation_is_planned_with_every_choice_written_down(client: TestClient) -> None:
    version()
    dataset = send(client, json.dumps(LLMBAR).encode()).json()["id"]
    answer = client.post("/v1/evaluations", json={"dataset": dataset, "model": "m:0", "seed": 3})
    assert answer.status_code == 201, answer.text
    out = answer.json()
    assert client.get(answer.headers["location"]).json() == out
    settings = out["settings"]
    assert (out["model"], out["benchmark"], out["state"]) == ("m:0", "llmbar", "running")
    assert (settings["template"], settings["max_tokens"], settings["seed"]) == ("mt-bench", 77, 3)
    assert settings["scoring"] == ["strict", "official"]
    with transaction() as session:
        (chunk,) = session.scalars(select(Chunk))
        assert (chunk.kind, chunk.input["limit"]) == ("evaluate", 2)
    assert client.get("/v1/evaluations?model=m:0").json()["data"] == [out]
    assert client.get("/v1/evaluations?model=m:1").json()["data"] == []
    assert [job["kind"] for job in client.get("/v1/jobs").json()["data"]] == ["evaluation"]
    assert client.get("/v1/jobs?kind=loop").json()["data"] == []
    cancelled = client.post(f"/v1/jobs/{out['id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"


def test_only_finished_evaluations_are_compared(client: TestClient) -> None:
    version()
    body = {"dataset": upload_labelled(client), "model": "m:0"}
    name = client.post("/v1/evaluations", json=body).json()["id"]
    early = client.get(f"/v1/evaluations/{name}/compare/{name}")
    assert_problem(early, 409, "not_finished")
    missing = client.get(f"/v1/evaluations/{name}/compare/eval_no")
    assert_problem(missing, 404, "evaluation_not_found")


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"dataset": "ds_no"}, 404, "dataset_not_found", "dataset"),
        ({"model": "m:7"}, 404, "unknown_model", None),
        ({"template": "nope"}, 422, "unknown_judge_template", "template"),
        ({"template": "rating"}, 422, "unknown_judge_template", "template"),
        ({"scoring": ["kind"]}, 422, "invalid_request", None),
        ({"scoring": []}, 422, "invalid_request", None),
        ({"votes": 0}, 422, "invalid_request", None),
    ],
)
def test_bad_evaluations_are_refused(
    client: TestClient, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    version()
    body = {"dataset": upload_labelled(client), "model": "m:0", **change}
    assert_problem(client.post("/v1/evaluations", json=body), status, code, param)
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_instructions_cannot_be_evaluated(client: TestClient) -> None:
    version()
    body = {"dataset": upload(client), "model": "m:0"}
    answer = client.post("/v1/evaluations", json=body)
    assert_problem(answer, 422, "wrong_dataset_kind", "dataset")


def test_a_base_model_is_registered_by_a_job(client: TestClient) -> None:
    answer = client.post("/v1/models", json={"base_model": "smallworld", "template": "smallworld"})
    assert answer.status_code == 202, answer.text
    out = answer.json()
    assert (out["kind"], out["model"], out["dataset"]) == ("registration", "smallworld", None)
    with transaction() as session:
        assert [chunk.kind for chunk in session.scalars(select(Chunk))] == ["register"]
    for change, code in (
        ({"base_model": "nope"}, "unknown_base_model"),
        ({"template": "nope"}, "unknown_judge_template"),
        ({"inference": "nope"}, "unknown_inference_endpoint"),
    ):
        body = {"base_model": "smallworld", **change}
        assert_problem(client.post("/v1/models", json=body), 422, code)


def test_a_template_is_uploaded_once_and_never_changes(client: TestClient) -> None:
    first = client.post("/v1/templates", json=TEMPLATE)
    assert first.status_code == 201, first.text
    out = first.json()
    assert (out["kind"], out["shipped"]) == ("judge", False)
    assert out["sha256"] == parse_template(TEMPLATE).sha256
    assert client.post("/v1/templates", json=TEMPLATE).json() == out
    assert client.get("/v1/templates/ours").json() == out
    changed = {**TEMPLATE, "verdicts": {"A": "<a>", "B": "<b>"}}
    refused = client.post("/v1/templates", json=changed)
    assert_problem(refused, 409, "template_exists", "name")
    names = [one["name"] for one in client.get("/v1/templates?limit=100").json()["data"]]
    assert "ours" in names and "mt-bench" in names and names == sorted(names)
    assert_problem(client.get("/v1/templates/nope"), 404, "template_not_found")


def test_a_shipped_name_is_taken(client: TestClient) -> None:
    refused = client.post("/v1/templates", json={**TEMPLATE, "name": "mt-bench"})
    assert_problem(refused, 409, "template_exists", "name")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "poem"},
        {"user": "{instruction} {response_a}"},
        {"verdicts": {"A": "x", "B": "x"}},
        {"name": "Bad Name"},
        {"more": 1},
    ],
)
def test_bad_templates_are_refused(client: TestClient, change: dict[str, Any]) -> None:
    answer = client.post("/v1/templates", json={**TEMPLATE, **change})
    assert_problem(answer, 422, "invalid_template")


def test_a_job_may_name_an_uploaded_template(client: TestClient) -> None:
    recipe = {**RECIPE, "judge": {"template": "job-ours"}}
    dataset = upload(client)
    missing = post_job(client, dataset, recipe=recipe)
    assert_problem(missing, 422, "unknown_judge_template")
    client.post("/v1/templates", json={**TEMPLATE, "name": "job-ours"})
    assert post_job(client, dataset, recipe=recipe).status_code == 201
