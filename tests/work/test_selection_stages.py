"""Stages that a recipe adds or leaves out: labels and quotas, pairs that are made once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import jsonl
from selftaught.artifacts import publish_rows, resolve
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Iteration, ModelVersion
from selftaught.inference.factory import close_engines
from selftaught.judging import load_label_template
from selftaught.settings import get_settings
from selftaught.work import planning
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler
from services.generator import tasks
from tests.inference.standin import standin
from tests.work.helpers import HANDLERS, drain, events, inputs, job, make_job, stages

pytestmark = pytest.mark.usefixtures("database")


def kinds(job_id: str) -> dict[int, tuple[str, ...]]:
    return {number: tuple(s.kind for s in found) for number, found in stages(job_id).items()}


def test_without_the_settings_the_stages_are_what_they_were() -> None:
    job_id = make_job(iterations=2)
    drain(job_id)
    assert kinds(job_id) == {
        0: planning.SEED_STAGES,
        1: planning.LOOP_STAGES,
        2: planning.LOOP_STAGES,
    }


def test_quotas_add_two_stages_and_pairs_come_from_what_was_chosen() -> None:
    job_id = make_job(select={"quotas": {}})
    drain(job_id)
    assert job(job_id).state == "succeeded"
    planned = ("register", "select", "label", "choose", "pair", "validate", "gate")
    assert kinds(job_id)[0] == planned
    labelled = inputs(job_id, "label")[0]
    assert [(entry["offset"], entry["limit"]) for entry in labelled] == [
        (offset, 2) for offset in range(0, 20, 2)
    ]
    assert {entry["selection"] for entry in labelled} == {artifact(job_id, "select")}
    (chosen,) = inputs(job_id, "choose")[0]
    assert len(chosen["labelled"]) == 10
    pairs = inputs(job_id, "pair")
    assert {e["selection"] for part in pairs.values() for e in part} == {artifact(job_id, "choose")}
    # 10 rows were chosen: 4 are held out, 6 are there for iteration 1, which asks for 8
    assert sum(entry["limit"] for entry in pairs[1]) == 6


def test_a_job_whose_rows_all_stay_unlabelled_ends_with_the_reason() -> None:
    def nothing(lease: Lease) -> Result:
        empty = publish_rows("labelled", lease.path("label"), [])
        return Result(counts={"dropped_unlabelled": 2}, artifact=empty)

    job_id = make_job(select={"quotas": {}})
    drain(job_id, {**HANDLERS, "label": Handler(nothing)})
    assert job(job_id).state == "failed"
    error = job(job_id).error
    assert error is not None and error["code"] == "no_usable_rows" and "choose" in error["detail"]


def test_fixed_pairs_are_made_once_and_judged_by_every_judge() -> None:
    job_id = make_job(iterations=3, pair={"fresh": False})
    drain(job_id)
    assert job(job_id).state == "succeeded"
    without = tuple(kind for kind in planning.LOOP_STAGES if kind != "pair")
    assert kinds(job_id) == {
        0: planning.SEED_STAGES,
        1: planning.LOOP_STAGES,
        2: without,
        3: without,
    }
    judged = inputs(job_id, "judge")
    paths = [[entry["pairs"] for entry in judged[number]] for number in (1, 2, 3)]
    assert len(paths[0]) == 4 and paths[0] == paths[1] == paths[2]
    judges = [{entry["version"] for entry in judged[number]} for number in (1, 2, 3)]
    assert [len(each) for each in judges] == [1, 1, 1] and len(set.union(*judges)) == 3
    curated = inputs(job_id, "curate")
    assert [curated[number][0]["pairs"] for number in (1, 2, 3)] == [paths[0]] * 3
    assert curated[2][0]["judgments"] != curated[1][0]["judgments"]
    assert "instructions.reused" not in {event.type for event in events(job_id)}


def test_rows_are_labelled_chosen_and_made_into_pairs_by_the_real_handlers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole of iteration 0 behind an endpoint: even numbers are maths, one is unreadable."""
    asks_for_labels = load_label_template("label").user.partition("{")[0]

    def reply(text: str, seed: int) -> str:
        if text.startswith(asks_for_labels):
            number = int(text.partition("say ")[2].split()[0])
            category = "math" if number % 2 == 0 else "other"
            return "?" if number == 4 else f"Category: {category}\nComplexity: 3\nLength: page"
        if "<modified>" in text:
            number = int(text.partition("say ")[2].split()[0])
            return f"<modified>say not {number}</modified>"
        return f"said: {text}"

    def register(session: Session, lease: Lease, _: Result) -> None:
        lineage = {"inference": "here", "recipe": {"base_model": "m"}}
        version = ModelVersion(
            id=lease.job_id, model="m", number=0, path="nowhere", sha256="0", lineage=lineage
        )
        session.add(version)
        session.flush()
        session.get_one(Iteration, lease.iteration_id).version_id = version.id

    handlers = {
        "register": Handler(lambda lease: Result(), register),
        "select": Handler(tasks.run_select),
        "label": Handler(tasks.run_label),
        "choose": Handler(tasks.run_choose),
        "pair": Handler(tasks.run_pair),
    }
    quotas = {"categories": {"math": 6}}
    with standin() as server:
        server.reply = reply
        monkeypatch.setenv("SELFTAUGHT_ENDPOINTS", json.dumps({"here": server.url}))
        get_settings.cache_clear()
        job_id = make_job(select={"quotas": quotas}, inference="here")
        drain(job_id, handlers, until="validate")
        close_engines()
    assert job(job_id).state == "running", job(job_id).error
    found = {stage.kind: stage for stage in stages(job_id)[0]}
    assert found["select"].metrics["kept"] == 20
    assert found["label"].counts["labelled"] == 19
    assert found["label"].counts["dropped_unlabelled"] == 1
    assert found["label"].counts["retried"] == 1
    assert found["label"].counts["tokens"] == 21 * 3
    assert found["choose"].counts == {"chosen": 6, "dropped_category": 10, "dropped_quota": 3}
    assert found["choose"].metrics["chosen"]["category"] == {"math": 6}
    assert found["pair"].counts["pairs"] == 4
    chosen = rows(artifact(job_id, "choose"))
    assert all(int(row["instruction"].split()[1]) % 2 == 0 for row in chosen)
    selected = [row["id"] for row in rows(artifact(job_id, "select"))]
    order = [selected.index(row["id"]) for row in chosen]
    assert order == sorted(order)
    dropped = [row for path in side_files("dropped") for row in rows(path)]
    assert [row["reason"] for row in dropped].count("quota") == 3
    assert {"id": "4", "reason": "unlabelled"} in dropped


def rows(path: str) -> list[dict[str, Any]]:
    return list(jsonl.read(resolve(path)))


def artifact(job_id: str, kind: str) -> str:
    """Path of the file that the only chunk of a stage published."""
    query = select(Artifact.path).join(Chunk, Chunk.artifact_id == Artifact.id)
    with transaction() as session:
        return session.scalars(query.where(Chunk.job_id == job_id, Chunk.kind == kind)).one()


def side_files(kind: str) -> list[str]:
    with transaction() as session:
        return list(session.scalars(select(Artifact.path).where(Artifact.kind == kind)))
