"""What tenants delete: datasets, jobs, versions; what is needed stays, whoever comes first."""

from __future__ import annotations

import datetime as dt
import re
import threading
from typing import Any

import pytest
from sqlalchemy import select, text
from starlette.testclient import TestClient

from selftaught import aliases, canaries, tenancy
from selftaught.client import ApiError, Client
from selftaught.database import transaction
from selftaught.database.tables import (
    Alias,
    Base,
    Evaluation,
    Iteration,
    Job,
    LoggedVerdict,
    ModelVersion,
    Project,
)
from selftaught.hashing import canonical_sha256
from selftaught.ids import new_id
from selftaught.keeping import erase
from selftaught.keeping.locks import REMOVING, session_lock
from selftaught.settings import get_settings
from selftaught.work import control
from services.api.main import create_app
from services.evaluator import recorder
from services.trainer.tasks import _add_version
from tests.api.conftest import assert_problem, client
from tests.api.helpers import add_versions, post_job, served, upload
from tests.keeping.test_backup import READERS
from tests.work.helpers import drain, make_dataset, make_job

__all__ = ["client"]


def rows(table: str, where: str = "true") -> int:
    with transaction() as session:
        return session.scalar(text(f"SELECT count(*) FROM {table} WHERE {where}")) or 0


def files() -> set[str]:
    root = get_settings().home
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_every_foreign_key_is_thought_of() -> None:
    """A new table that names a job or a version needs a line in selftaught.keeping.erase."""
    told = " ".join((*erase.OF_JOB, *erase.OF_VERSION, *erase.VERSION_USERS.values()))
    for parent in ("jobs", "model_versions", "chunks", "canaries", "review_items"):
        for table in Base.metadata.sorted_tables:
            for key in table.foreign_keys:
                if key.column.table.name == parent and table.name not in ("chunks", "stages"):
                    named = re.search(rf"\b{table.name}\b[^;]*\b{key.parent.name}\b", told)
                    assert named, f"{table.name}.{key.parent.name} -> {parent}"


def test_a_dataset_goes_with_its_file_and_a_job_keeps_its_hash(client: TestClient) -> None:
    free, used = upload(client), upload(client, 7)
    sha256 = client.get(f"/v1/datasets/{used}").json()["sha256"]
    job_id = post_job(client, used).json()["id"]
    body = assert_problem(client.delete(f"/v1/datasets/{used}"), 409, "dataset_in_use")
    assert "running job" in body["detail"]
    assert client.delete(f"/v1/datasets/{free}").status_code == 204
    assert_problem(client.delete(f"/v1/datasets/{free}"), 404, "dataset_not_found")
    client.post(f"/v1/jobs/{job_id}/cancel")
    assert client.delete(f"/v1/datasets/{used}").status_code == 204
    for gone in (free, used):
        assert_problem(client.get(f"/v1/datasets/{gone}"), 404, "dataset_not_found")
        assert_problem(post_job(client, gone), 404, "dataset_not_found")
    assert client.get("/v1/datasets").json()["data"] == []
    assert client.get(f"/v1/jobs/{job_id}").json()["dataset"] == used
    assert rows("datasets", f"id = '{used}' AND sha256 = '{sha256}'") == 1
    assert rows("datasets") == 1 and rows("artifacts") == 0 and files() == set()


@pytest.mark.parametrize("place", ["labelled_dataset_id", "gate"])
def test_a_dataset_that_a_running_job_is_scored_on_is_in_use(
    client: TestClient, place: str
) -> None:
    dataset = upload(client)
    job_id = make_job()
    with transaction() as session:
        job = session.get_one(Job, job_id)
        if place == "gate":
            job.recipe = {**job.recipe, "gate": {"labelled": [dataset]}}
        else:
            job.labelled_dataset_id = dataset
    assert_problem(client.delete(f"/v1/datasets/{dataset}"), 409, "dataset_in_use")


def test_an_ended_job_goes_with_all_it_made_but_its_versions(client: TestClient) -> None:
    job_id = make_job()
    assert_problem(client.delete(f"/v1/jobs/{job_id}"), 409, "job_not_ended")
    drain(job_id, READERS)
    with transaction() as session:
        version = session.scalars(
            select(ModelVersion).join(Iteration, Iteration.version_id == ModelVersion.id)
        ).first()
        assert version is not None
        version.job_id = job_id
        session.add(
            Evaluation(id="ev", version_id=version.id, job_id=job_id, set="heldout", metrics={})
        )
        name, number = version.model, version.number
    dataset = {name for name in files() if "/datasets/" in name}
    left = get_settings().artifacts_dir / "jobs" / job_id / "0" / "pair" / "left.tmp"
    left.write_text("of a worker that was killed")
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert_problem(client.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    for table in ("jobs", "iterations", "stages", "chunks", "events", "outbox"):
        assert rows(table) == 0, table
    assert rows("artifacts") == 1 and rows("evaluations") == 1
    shown = client.get(f"/v1/models/{name}/versions/{number}").json()
    assert shown["job"] is None and shown["metrics"] == {"heldout": {}}
    assert {one for one in files() if "/model.safetensors" not in one} == dataset | {
        one.replace(".jsonl", ".manifest.json") for one in dataset
    }


def test_a_job_whose_pairs_a_running_review_reads_is_in_use(client: TestClient) -> None:
    job_id, other = make_job(), make_job()
    drain(job_id, READERS)
    with transaction() as session:
        session.execute(
            text(
                "UPDATE chunks SET input = jsonb_build_object('paths',"
                " jsonb_build_array('jobs/' || :id || '/0/pair/x.jsonl')) WHERE job_id = :other"
            ),
            {"id": job_id, "other": other},
        )
    assert_problem(client.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
    client.post(f"/v1/jobs/{other}/cancel")
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204


def test_a_version_goes_and_its_number_is_not_given_again(client: TestClient) -> None:
    add_versions("m", [0, 1, 2], latest=1)
    folder = get_settings().versions_dir / "m" / "2"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("weights")
    with transaction() as session:
        aliases.move(session, "m", "latest", 2, "up")
        aliases.move(session, "m", "latest", 1, "down")
        two = aliases.get_version(session, "m", 2)
        alias = aliases.lock(session, "m", "latest")
        assert alias is not None
        canaries.start(session, alias, two, "shadow", 1.0, "try")
    url = "/v1/models/m/versions/2"
    assert "canary" in assert_problem(client.delete(url), 409, "version_in_use")["detail"]
    client.delete("/v1/models/m/aliases/latest/canary")
    assert client.delete(url).status_code == 204
    assert_problem(client.get(url), 404, "unknown_model")
    assert_problem(client.delete(url), 404, "unknown_model")
    assert_problem(client.delete("/v1/models/m/versions/1"), 409, "version_in_use")
    assert [move["version"] for move in client.get("/v1/models/m/aliases/latest").json()["history"]]
    assert not folder.exists() and rows("canaries") == 0
    with transaction() as session:
        job = Job(id=new_id("job"), state="running", model="m", recipe={})
        session.add(job)
        session.flush()
        made = _add_version(session, job, "m", 1, {"path": "p", "sha256": "s", "lineage": {}})
        assert made.number == 3


@pytest.mark.parametrize("named", ["child", "iteration", "settings", "chunk", "role"])
def test_a_version_that_something_needs_is_in_use(client: TestClient, named: str) -> None:
    add_versions("m", [0])
    job_id = make_job()
    with transaction() as session:
        version = aliases.get_version(session, "m", 0)
        if named == "child":
            session.add(
                ModelVersion(
                    id="v", model="m", number=1, path="", sha256="", lineage={},
                    parent_id=version.id,
                )
            )  # fmt: skip
        elif named == "settings":
            job = session.get_one(Job, job_id)
            job.recipe = {**job.recipe, "version": version.id}
        elif named == "iteration":
            session.execute(text("UPDATE iterations SET version_id = :v"), {"v": version.id})
        else:
            place = {"chunk": "input", "role": "metrics"}[named]
            value = {"chunk": '{"version": "%s"}', "role": '{"roles": {"generator": "%s"}}'}[named]
            session.execute(
                text(f"UPDATE chunks SET {place} = CAST(:v AS jsonb)"), {"v": value % version.id}
            )
    assert_problem(client.delete("/v1/models/m/versions/0"), 409, "version_in_use")
    if named != "child":
        client.post(f"/v1/jobs/{job_id}/cancel")
        assert client.delete("/v1/models/m/versions/0").status_code == 204


@pytest.mark.parametrize("first", ["alias", "deletion"])
def test_of_an_alias_and_a_deletion_at_the_same_time_one_is_refused(
    client: TestClient, first: str
) -> None:
    add_versions("m", [0, 1], latest=0)
    answers: list[Any] = []
    url = "/v1/models/m/versions/1"

    def second() -> None:
        if first == "alias":
            answers.append(client.delete(url))
        else:
            body = {"version": 1, "reason": "r", "prepare": False}
            answers.append(client.put("/v1/models/m/aliases/stable", json=body))

    other = threading.Thread(target=second)
    with transaction() as session:
        if first == "alias":
            aliases.move(session, "m", "stable", 1, "first")
        else:
            erase.version(session, "m", 1)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive(), "it waits for the first one"
    other.join()
    expected = (409, "version_in_use") if first == "alias" else (404, "unknown_model")
    assert (answers[0].status_code, answers[0].json()["code"]) == expected
    with transaction() as session:
        names = list(session.scalars(select(Alias.alias).order_by(Alias.alias)))
    assert names == (["latest", "stable"] if first == "alias" else ["latest"])


def test_a_job_that_comes_at_the_same_time_as_the_deletion_of_its_dataset_is_refused(
    client: TestClient,
) -> None:
    dataset = upload(client)
    answers: list[Any] = []
    other = threading.Thread(target=lambda: answers.append(post_job(client, dataset)))
    with transaction() as session:
        erase.dataset(session, dataset)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
    other.join()
    assert_problem(answers[0], 404, "dataset_not_found")
    assert rows("jobs") == 0


def test_what_a_backup_may_be_copying_is_left_to_the_collector(client: TestClient) -> None:
    dataset = upload(client)
    with session_lock(REMOVING):
        assert client.delete(f"/v1/datasets/{dataset}").status_code == 204
        assert f"artifacts/datasets/{dataset}.jsonl" in files()


def test_verdicts_of_a_deleted_version_do_not_cost_the_others(database: object) -> None:
    add_versions("m", [0, 1])
    with transaction() as session:
        ids = [aliases.get_version(session, "m", number).id for number in (0, 1)]
        erase.version(session, "m", 0)
    row = {
        "created_at": dt.datetime.now(dt.UTC), "alias": None, "template": "t",
        "template_sha256": "s", "verdict": "A", "confidence": 1.0, "orders": [], "votes": 1,
        "parse_failures": 0, "prompt_tokens": 1, "completion_tokens": 1, "cached": False,
        "total_seconds": 1.0, "queue_seconds": 0.0, "engine_seconds": 1.0,
        "content_sha256": canonical_sha256("q"),
    }  # fmt: skip
    given = [(LoggedVerdict, {**row, "id": one, "version_id": one}) for one in ids]
    recorder._write(given)
    assert rows("verdicts") == rows("verdicts", f"version_id = '{ids[1]}'") == 1


def test_a_promotion_finds_its_gate_in_the_lineage_once_the_job_is_gone(
    client: TestClient,
) -> None:
    job_id = make_job()
    with transaction() as session:
        control.cancel_job(session, job_id)
    recipe = {"gate": {"margin": 0.5}}
    add_versions("m", [0, 1], latest=0, lineage={"recipe": recipe})
    with transaction() as session:
        for number, accuracy in ((0, 0.4), (1, 0.8)):
            version = aliases.get_version(session, "m", number)
            metrics = {
                "n": 100, "strict_accuracy": accuracy, "mean_accuracy": accuracy,
                "position_bias": 0.0, "parse_failure_rate": 0.0,
            }  # fmt: skip
            session.add(
                Evaluation(
                    id=new_id("ev"), version_id=version.id, job_id=job_id, set="heldout",
                    metrics=metrics,
                )
            )  # fmt: skip
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    answer = client.post("/v1/models/m/versions/1/promote", json={"prepare": False})
    assert answer.status_code == 409, answer.text
    assert "0.9" in answer.json()["detail"], "0.4 and the margin of the version's recipe"


def test_a_project_deletes_nothing_of_another(client: TestClient) -> None:
    with transaction() as session:
        session.add(Project(id="red"))
    with tenancy.inside("red"):
        add_versions("m", [0])
        dataset, job_id = make_dataset(2), new_id("job")
        with transaction() as session:
            session.add(Job(id=job_id, state="failed", model="m", recipe={}))
    assert_problem(client.delete(f"/v1/datasets/{dataset}"), 404, "dataset_not_found")
    assert_problem(client.delete(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    assert_problem(client.delete("/v1/models/m/versions/0"), 404, "unknown_model")
    assert rows("datasets") == rows("jobs") == rows("model_versions") == 1
    with tenancy.inside("red"), transaction() as session:
        erase.dataset(session, dataset)
        erase.job(session, job_id)
        erase.version(session, "m", 0)
    assert rows("datasets") == rows("jobs") == rows("model_versions") == 0
    assert rows("deleted_versions", "project_id = 'red'") == 1


def test_the_client_deletes(database: object) -> None:
    add_versions("m", [0])
    dataset, job_id = make_dataset(2), make_job()
    with served(create_app()) as url, Client(url) as user:
        with pytest.raises(ApiError, match="is running"):
            user.jobs.get(job_id).delete()
        user.jobs.get(job_id).cancel().delete()
        user.datasets.delete(dataset)
        user.models.delete_version("m", 0)
    assert rows("jobs") == rows("model_versions") == 0 and rows("datasets") == 1
