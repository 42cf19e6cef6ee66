"""A job's gate on a real Postgres: validated with a judge of known skill, decided, recorded."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import aliases, promotions
from selftaught.artifacts import publish_rows
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Dataset, Iteration, Job, ModelVersion, Promotion
from selftaught.ids import new_id
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler
from services.evaluator import tasks
from tests.generator.scripted import Scripted
from tests.work.helpers import HANDLERS, drain, events, inputs, job, make_job, stages

pytestmark = pytest.mark.usefixtures("database")

PAIRS = 40
Wrong = dict[int, set[int]]  # iteration -> the pairs on which its version takes the worse response


def pairs(first: int, n: int) -> Any:
    return (
        {"id": str(i), "instruction": f"say {i}", "chosen": "good", "rejected": "bad"}
        for i in range(first, first + n)
    )


def labelled_set(first: int) -> str:
    """A labelled dataset of 40 pairs numbered from `first`."""
    dataset = new_id("ds")
    made = publish_rows("dataset", f"datasets/{dataset}.jsonl", pairs(first, PAIRS))
    with transaction() as session:
        artifact = Artifact(id=new_id("art"), **made.__dict__)
        session.add(artifact)
        session.flush()
        session.add(Dataset(id=dataset, name="d", kind="labelled", artifact_id=artifact.id))
    return dataset


def publish(session: Session, lease: Lease, _result: Result) -> None:
    version = ModelVersion(
        id=new_id("ver"),
        model=session.get_one(Job, lease.job_id).model,
        number=lease.iteration,
        job_id=lease.job_id,
        iteration_number=lease.iteration,
        path="nowhere",
        sha256="0",
        lineage={"template": {"name": "verdict-only", "sha256": "0"}},
    )
    session.add(version)
    session.flush()
    session.get_one(Iteration, lease.iteration_id).version_id = version.id


def heldout(lease: Lease) -> Result:
    made = publish_rows("pair", lease.path("pair"), pairs(0, 2 * PAIRS))
    return Result(artifact=made)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a whole job whose versions are wrong on these pairs; odd held-out pairs are scored."""

    def start(wrong: Wrong, letter: str | None = None, **settings: Any) -> str:
        def open_version(version: ModelVersion, _job: str) -> Scripted:
            def say(shown: str, _seed: int, _sample: int) -> str:
                number = int(re.search(r"say (\d+)", shown)[1])  # type: ignore[index]
                right = "A" if shown.index("good") < shown.index("bad") else "B"
                other = {"A": "B", "B": "A"}[right]
                said = other if number in wrong[version.number] else right
                return f"[[{letter if letter and version.number else said}]]"

            return Scripted(say)

        monkeypatch.setattr(tasks, "open_version", open_version)
        handlers = {
            **HANDLERS,
            "register": Handler(HANDLERS["register"].run, publish),
            "train": Handler(HANDLERS["train"].run, publish),
            "pair": Handler(heldout),
            "validate": Handler(tasks.validate),
            "gate": Handler(tasks.gate, tasks.apply_gate),
        }
        job_id = make_job(**{"iterations": len(wrong) - 1, **settings})
        drain(job_id, handlers)
        assert job(job_id).state == "succeeded", job(job_id).error
        return job_id

    return start


def gate_of(job_id: str, iteration: int) -> dict[str, Any]:
    """The metrics that the gate stage shows."""
    return stages(job_id)[iteration][-1].metrics


def history(alias: str) -> list[tuple[int, str]]:
    with transaction() as session:
        moves = aliases.history(session, "kernel-test", alias)
        return [(session.get_one(ModelVersion, m.version_id).number, m.reason) for m in moves]


def failed(found: dict[str, Any]) -> list[tuple[str, str | None, float, float]]:
    return [
        (f["rule"], f["set"], f["got"], f["needed"]) for f in found["findings"] if not f["passed"]
    ]


def test_a_better_version_is_promoted_and_a_worse_one_refused(run: Any) -> None:
    few, many = {1, 3}, set(range(1, 21))
    job_id = run({0: many, 1: few, 2: many})
    assert history("latest") == [(0, f"gate of {job_id}"), (1, f"gate of {job_id}")]
    assert [gate_of(job_id, i)["promoted"] for i in range(3)] == [True, True, False]
    assert gate_of(job_id, 1)["heldout"]["strict_accuracy"] == 0.95
    assert failed(gate_of(job_id, 2)) == [("margin", "heldout", 0.75, 0.95)]
    decided = [event.data for event in events(job_id) if event.type == "gate.decided"]
    assert [(d["iteration"], d["version"], d["promoted"]) for d in decided] == [
        (0, "kernel-test:0", True),
        (1, "kernel-test:1", True),
        (2, "kernel-test:2", False),
    ]
    assert "strict accuracy 0.7500, needed 0.9500: failed" in decided[2]["reasons"][0]
    with transaction() as session:
        rows = session.scalars(select(Promotion).order_by(Promotion.id)).all()
        assert [(p.promoted, p.forced, p.job_id) for p in rows] == [
            (True, False, job_id),
            (True, False, job_id),
            (False, False, job_id),
        ]
        assert rows[2].findings == gate_of(job_id, 2)["findings"]


def test_named_labelled_sets_are_scored_and_a_fall_beyond_chance_refuses(run: Any) -> None:
    first, second = labelled_set(1000), labelled_set(2000)
    fall, chance = set(range(1000, 1010)), {2000}
    job_id = run(
        {0: {1}, 1: fall | chance}, gate={"labelled": [first, second], "labelled_tolerance": 0}
    )
    sets = [(entry["set"], entry["second"]) for entry in inputs(job_id, "validate")[1]]
    assert sets == [
        ("heldout", True),
        (f"labelled/{first}", False),
        (f"labelled/{second}", False),
    ]
    found = gate_of(job_id, 1)
    assert found[f"labelled/{second}"]["strict_accuracy"] == 0.975  # 1 of 40 lost: chance
    assert failed(found) == [("labelled", f"labelled/{first}", 0.75, 1.0)]
    (detail,) = [f["detail"] for f in found["findings"] if not f["passed"]]
    # 10 of 40 lost: (0.5 - 10.5) / 42 -+ 1.96 * sqrt(11 - 100/42) / 42
    assert "-0.2500 against the incumbent, 95 % -0.3751 to -0.1011" in detail
    assert history("latest") == [(0, f"gate of {job_id}")]


def test_a_judge_that_only_knows_one_letter_is_refused(run: Any) -> None:
    job_id = run({0: set(range(80)), 1: set()}, letter="A")
    assert failed(gate_of(job_id, 1)) == [("position_bias", "heldout", 1.0, 0.9)]


def test_what_waits_for_reviews_only_becomes_the_candidate(run: Any) -> None:
    settings = {"gate": {"reviews": {"minimum": 5}}}
    job_id = run({0: {1, 3, 5}, 1: {1}, 2: set(range(80))}, **settings)
    assert history("latest") == [(0, f"gate of {job_id}")]
    assert failed(gate_of(job_id, 1)) == [("reviews", None, 0, 5)]
    assert [rule for rule, *_ in failed(gate_of(job_id, 2))] == ["margin", "reviews"]
    assert history(promotions.CANDIDATE) == [(1, f"gate of {job_id}: waits for reviews")]


def test_a_second_job_scores_the_latest_of_the_first_and_has_to_beat_it(run: Any) -> None:
    run({0: {1, 3, 5}, 1: set()})
    with transaction() as session:
        before = aliases.resolve(session, "kernel-test")
        for version in session.scalars(select(ModelVersion)):
            version.number += 10  # out of the way of the next job's
    other = run({0: set(), 1: {1}, 10: {1, 3, 5}, 11: set()}, iterations=1)
    # Its seed is as good as what is there, and untrained.
    (finding,) = gate_of(other, 0)["findings"]
    assert (finding["rule"], finding["passed"]) == ("seed", False)
    assert gate_of(other, 0)["heldout"]["strict_accuracy"] == 1.0
    assert failed(gate_of(other, 1)) == [("margin", "heldout", 0.975, 1.0)]
    with transaction() as session:
        assert aliases.resolve(session, "kernel-test").id == before.id
        (refused, *_) = session.scalars(select(Promotion).order_by(Promotion.id.desc()))
        assert refused.incumbent_id == before.id


def test_a_chunk_without_outcomes_leaves_none_to_pair() -> None:
    assert tasks._rights([{"right": "10"}, {"right": ""}, {"right": "1"}]) == "101"
    assert tasks._rights([{"right": "10"}, {}, {"right": "1"}]) is None, "places would not fit"
