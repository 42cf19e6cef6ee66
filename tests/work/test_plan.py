"""What the pipeline hands to a stage's chunks, where a recipe has a say in it."""

from __future__ import annotations

import pytest

from selftaught import jsonl
from selftaught.artifacts import publish_rows, resolve
from selftaught.work.kernel import Lease, Result
from services.evaluator.tasks import _pairs
from tests.work.helpers import drain, inputs, job, make_job, with_run

pytestmark = pytest.mark.usefixtures("database")


def test_a_quota_is_cut_by_the_pairs_of_each_chunk() -> None:
    def pairs(lease: Lease) -> Result:
        rows = [{"n": i} for i in range(3 if lease.chunk_id.endswith(".0") else 1)]
        return Result(artifact=publish_rows("pairs", lease.path("pair"), rows))

    job_id = make_job(judge={"need": "right", "quota": 4})
    drain(job_id, with_run("pair", pairs))
    assert [entry["quota"] for entry in inputs(job_id, "judge")[1]] == [2, 1, 1, 1]
    job_id = make_job()
    drain(job_id)
    assert [entry["quota"] for entry in inputs(job_id, "judge")[1]] == [None] * 4


@pytest.mark.parametrize("choose_on", ["heldout", "labelled"])
def test_no_pair_both_chooses_a_checkpoint_and_is_scored(choose_on: str) -> None:
    job_id = make_job(labelled=5, validate={"choose_on": choose_on})
    drain(job_id)
    assert job(job_id).state == "succeeded"
    (training,) = inputs(job_id, "train")[1]
    sets = {entry["set"]: entry for entry in inputs(job_id, "validate")[1]}
    assert training["choose_on"] == sets[choose_on]["paths"]
    assert (sets["labelled"]["paths"] == training["choose_on"]) == (choose_on == "labelled")
    scored = [row["id"] for row in _pairs(sets["labelled"])]
    # the trainer has rows 0, 2 and 4 of the set that chooses
    assert scored == (["1", "3"] if choose_on == "labelled" else ["0", "1", "2", "3", "4"])
    scored = [row["n"] for row in _pairs(sets["heldout"])]
    assert scored == ([1, 1] if choose_on == "heldout" else [0, 1, 0, 1])


@pytest.mark.parametrize("objective", ["sft", "sft_dpo"])
def test_examples_of_all_iterations_are_trained_on_if_asked_for(objective: str) -> None:
    def curate(lease: Lease) -> Result:
        rows: list[dict[str, int]] = [] if lease.iteration == 3 else [{"n": lease.iteration}]
        beside = publish_rows("preferences", lease.path("preferences"), rows)
        own = publish_rows("examples", lease.path("curate"), rows)
        return Result(artifact=own, side_artifacts=(beside,))

    def trained_on(**train: str) -> list[list[int]]:
        job_id = make_job(iterations=3, train={**train, "objective": objective})
        drain(job_id, with_run("curate", curate))
        files = [[resolve(path) for path in one[0]["examples"]] for one in
                 inputs(job_id, "train").values()]  # fmt: skip
        return [[row["n"] for file in one for row in jsonl.read(file)] for one in files]

    assert trained_on() == [[1], [2]], "nothing is left in iteration 3, and the job ends"
    assert trained_on(examples="all") == [[1], [1, 2], [1, 2]]


def test_one_labelled_pair_cannot_both_choose_and_promote() -> None:
    job_id = make_job(labelled=1, validate={"choose_on": "labelled"})
    drain(job_id)
    error = job(job_id).error
    assert error is not None and error["code"] == "no_usable_rows"
