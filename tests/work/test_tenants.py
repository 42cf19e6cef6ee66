"""Workers belong to nobody, and each chunk is its job's project's: two tenants whose models have
one name, and whose chunks the same workers take, end with versions of their own."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from selftaught import aliases, tenancy
from selftaught.contracts import Recipe
from selftaught.database import transaction
from selftaught.database.tables import (
    Alias,
    Artifact,
    Evaluation,
    Job,
    ModelVersion,
    Project,
    Promotion,
)
from selftaught.ids import new_id
from selftaught.work import pipeline
from selftaught.work.worker import Handler, run_one
from services.evaluator import tasks as evaluator
from services.trainer import tasks as trainer
from tests.evaluator.test_job_gate import heldout, publish
from tests.generator.scripted import Scripted
from tests.work.helpers import HANDLERS, inputs, job, make_job, ready

TENANTS = ("red", "blue")


@pytest.fixture(autouse=True)
def tenants(database: Any) -> None:
    with transaction() as session:
        session.add_all(Project(id=name) for name in TENANTS)


def in_turn(jobs: list[str], handlers: dict[str, Handler]) -> None:
    """One worker takes a chunk of each job in turn, until there are none."""
    while any(chunks := [ready(one) for one in jobs]):
        for found in filter(None, chunks):
            assert run_one(found[0], "worker", handlers)


def versions(project: str) -> dict[str, str]:
    """name:number -> id, as the project sees it."""
    with tenancy.inside(project), transaction() as session:
        return {row.ref: row.id for row in session.scalars(select(ModelVersion))}


def latest(project: str, model: str) -> str | None:
    with tenancy.inside(project), transaction() as session:
        row = aliases.find(session, model, "latest")
        return None if row is None else row.version_id


def test_a_job_registers_judges_and_promotes_under_its_own_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Red has promoted a version of that model before; blue's is neither compared with it, nor
    numbered behind it, nor does it move red's alias."""
    asked: set[str] = set()

    def open_version(version: ModelVersion, _job: str) -> Scripted:
        asked.add(f"{tenancy.current()} {version.project_id}")
        right = version.project_id == "blue"
        return Scripted(
            lambda shown, *_: (
                "[[A]]" if (shown.index("good") < shown.index("bad")) == right else "[[B]]"
            )
        )

    monkeypatch.setattr(evaluator, "open_version", open_version)
    handlers = {
        **HANDLERS,
        "register": Handler(HANDLERS["register"].run, publish),
        "train": Handler(HANDLERS["train"].run, publish),
        "pair": Handler(heldout),
        "validate": Handler(evaluator.validate),
        "gate": Handler(evaluator.gate, evaluator.apply_gate),
    }
    jobs = {}
    for project in TENANTS:
        with tenancy.inside(project):
            jobs[project] = make_job(iterations=1)
        in_turn([jobs[project]], handlers)
        if project == "red":
            before = latest("red", "kernel-test")
            assert before is not None
    assert {job(one).state for one in jobs.values()} == {"succeeded"}
    assert asked == {"red red", "blue blue"}
    mine, theirs = versions("blue"), versions("red")
    assert set(mine) == set(theirs) == {"kernel-test:0", "kernel-test:1"}
    assert not set(mine.values()) & set(theirs.values())
    assert latest("red", "kernel-test") == before in theirs.values()
    assert latest("blue", "kernel-test") in mine.values()
    for chunks in inputs(jobs["blue"], "validate").values():
        assert {one["version"] for one in chunks} <= set(mine.values())
    with transaction() as session:  # and nothing came to be the operator's
        for table in (ModelVersion, Artifact, Alias, Job):
            assert set(session.scalars(select(table.project_id))) == set(TENANTS)
        judged = session.execute(
            select(Job.project_id, ModelVersion.project_id)
            .select_from(Evaluation)
            .join(Job, Job.id == Evaluation.job_id)
            .join(ModelVersion, ModelVersion.id == Evaluation.version_id)
        ).all()
        assert {tuple(row) for row in judged} == {("red", "red"), ("blue", "blue")}
        decided = session.execute(
            select(ModelVersion.project_id, Promotion.incumbent_id).join(
                ModelVersion, ModelVersion.id == Promotion.version_id
            )
        ).all()
        assert {incumbent for whose, incumbent in decided if whose == "blue"} <= {
            None, *mine.values(),
        }  # fmt: skip


def test_a_base_model_is_a_version_of_each_tenant_that_registers_it() -> None:
    """The same weights under the same name: one version for each, though a job of the same project
    would have shared it."""
    recipe = Recipe.model_validate({"name": "tour", "base_model": "smallworld"})
    jobs = []
    for project in (*TENANTS, "blue"):
        with tenancy.inside(project), transaction() as session:
            row = Job(
                id=new_id("job"), kind="registration", state="pending", model="tour",
                recipe=recipe.model_dump(mode="json", by_alias=True),
            )  # fmt: skip
            session.add(row)
            pipeline.start_job(session, row)
            jobs.append(row.id)
    in_turn(jobs, {"register": Handler(trainer.register, trainer.apply_register)})
    assert {job(one).state for one in jobs} == {"succeeded"}
    red, blue = versions("red"), versions("blue")
    assert set(red) == set(blue) == {"tour:0"} and red != blue
    assert latest("red", "tour") == red["tour:0"] and latest("blue", "tour") == blue["tour:0"]
