"""How far a job is, and when it may end: by the rules that selftaught/work/progress.py tells."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import event

from selftaught.contracts import JobProgress
from selftaught.database import transaction
from selftaught.database.session import get_engine
from selftaught.database.tables import Job
from selftaught.work import kernel, progress
from selftaught.work.kernel import Lease, Result
from selftaught.work.progress import Run
from selftaught.work.worker import run_one
from tests.work import helpers
from tests.work.helpers import HANDLERS, drain, job, make_job, ready, with_run

SEED = [
    Run("register", "succeeded", 0, 1, 1, 10.0),
    Run("select", "succeeded", 0, 1, 1, 1.0),
    Run("pair", "succeeded", 0, 2, 2, 8.0),
    Run("validate", "succeeded", 0, 2, 2, 6.0),
    Run("gate", "succeeded", 0, 1, 1, 1.0),
]
FIRST = [
    Run("pair", "succeeded", 1, 4, 4, 12.0),
    Run("judge", "succeeded", 1, 4, 4, 20.0),
    Run("curate", "succeeded", 1, 1, 1, 2.0),
    Run("train", "succeeded", 1, 1, 1, 30.0),
    Run("validate", "succeeded", 1, 2, 2, 4.0),
    Run("gate", "succeeded", 1, 1, 1, 2.0),
]


def of(*runs: Run, iterations: int = 2, state: str = "running", kind: str = "loop") -> JobProgress:
    recipe = {"iterations": iterations, "pair": {"fresh": True}, "select": {"quotas": None}}
    found = Job(id="job_1", kind=kind, state=state, model="m", recipe=recipe)
    return progress.progress(found, runs)


def test_the_end_is_not_known_before_every_stage_has_been_seen() -> None:
    judging = Run("judge", "running", 1, 4, 1, 5.0)
    told = of(*SEED, FIRST[0], judging)
    assert (told.stage, told.chunks, told.chunks_done) == ("judge", 4, 1)
    assert told.eta_seconds is None
    assert told.eta_basis == "not known yet: this job has not run 'train' so far"
    training = Run("train", "running", 1, 1, 0, 9.0)
    told = of(*SEED, *FIRST[:3], training)
    assert told.eta_seconds is None
    assert told.eta_basis == "not known yet: nothing of 'train' is done so far"


def test_a_first_training_tells_by_its_steps() -> None:
    training = Run("train", "running", 1, 1, 0, 95.0, steps=0.125)
    assert of(*SEED, *FIRST[:3], training, iterations=1).eta_seconds is None  # no pace yet
    training = Run("train", "running", 1, 1, 0, 95.0, steps=0.5, steps_left=5.0)
    told = of(*SEED, *FIRST[:3], training, iterations=1)
    assert told.eta_seconds == 5 + 6 + 1  # then validate and gate, as in iteration 0
    assert told.eta_basis == (
        "'train' goes on as it has so far, the others take as long as they last did"
    )


def test_a_stage_takes_as_long_as_it_last_did() -> None:
    judging = Run("judge", "running", 2, 4, 1, 400.0)  # it may have stood still
    told = of(*SEED, *FIRST[1:], Run("pair", "succeeded", 2, 8, 8, 16.0), judging, iterations=3)
    rest = 15 + 2 + 30 + 4 + 2
    assert told.eta_seconds == rest + (16 + 20 + 2 + 30 + 4 + 2)
    assert told.eta_basis == "every stage takes as long as it last did"
    assert told.share == pytest.approx((2 + (1 + 0.25) / 6) / 4, abs=1e-4)


@pytest.mark.parametrize(
    ("seconds", "steps", "steps_left", "left"),
    [
        (10.0, None, None, 20.0),  # it has not told of a step yet
        (12.0, 0.1, 27.0, 27.0),  # slower than the last one
        (25.0, 1.0, 0.0, 5.0),  # its checkpoints are being scored
        (90.0, 1.0, 0.0, 0.0),
    ],
)
def test_a_training_has_work_around_its_steps(
    seconds: float, steps: float | None, steps_left: float | None, left: float
) -> None:
    training = Run("train", "running", 2, 1, 0, seconds, steps, steps_left)
    earlier = [run for run in FIRST if run.kind in ("train", "validate", "gate")]
    now = [Run(run.kind, "succeeded", 2, run.chunks, run.chunks, 1.0) for run in FIRST[:3]]
    assert of(*earlier, *now, training).eta_seconds == left + 4 + 2


def test_jobs_of_one_stage_that_asks_a_model() -> None:
    told = of(Run("evaluate", "running", 0, 10, 4, 20.0), kind="evaluation")
    assert (told.eta_seconds, told.share, told.iterations) == (30.0, 0.2, 0)
    assert told.eta_basis == "'evaluate' goes on as it has so far"
    told = of(
        Run("evaluate", "succeeded", 0, 9, 9, 9.0),
        Run("score", "running", 0, 1, 0, 1.0),
        kind="evaluation",
    )
    assert (told.eta_seconds, told.share) == (0.0, 0.5)
    told = of(Run("register", "running", 0, 1, 0, 3.0), kind="registration")
    assert told.eta_seconds is None and told.share == 0


def test_a_job_that_stands_still_or_has_ended_has_no_end_to_tell() -> None:
    judging = Run("judge", "running", 2, 4, 1, 5.0)
    told = of(*FIRST, Run("pair", "succeeded", 2, 4, 4, 3.0), judging, state="paused")
    assert (told.stage, told.eta_seconds) == ("judge", None)
    assert told.eta_basis == "not known while the job is paused"
    told = of(*SEED, *FIRST, state="succeeded", iterations=1)
    assert (told.share, told.stage, told.eta_seconds, told.eta_basis) == (1, None, None, None)
    told = of(*FIRST[:1], Run("judge", "failed", 1, 4, 2, 5.0), state="failed")
    assert (told.share, told.stage) == (pytest.approx((1 + 1.5 / 6) / 3, abs=1e-4), None)
    assert of().share == 0


@pytest.mark.usefixtures("database")
def test_a_job_goes_forward_and_its_end_is_told_once_it_can_be() -> None:
    job_id = make_job(iterations=3, labelled=4)
    shares, told = [], []
    while chunks := ready(job_id):
        now = read(job_id)
        shares.append(now.share)
        told.append(now.eta_seconds is not None)
        if now.stage == "train":
            lease = kernel.claim(chunks[0], "test")
            assert lease is not None
            lease.say("train.step", {"step": 5, "steps": 10, "step_seconds": 60.0})
            half = read(job_id)
            assert half.share > now.share
            assert half.eta_seconds is not None and half.eta_seconds >= 300
            kernel.let_go(lease)
        run_one(chunks[0], "test", HANDLERS)
    assert job(job_id).state == "succeeded" and read(job_id).share == 1
    assert shares == sorted(shares) and len(set(shares)) == len(shares)
    first = told.index(True)
    assert all(told[first:]) and shares[first] > 0.25  # not before iteration 1 has trained


@pytest.mark.usefixtures("database")
def test_pages_of_jobs_take_as_many_queries_as_one_job() -> None:
    jobs = [make_job() for _ in range(5)]
    drain(jobs[0])
    drain(jobs[1], until="judge")
    asked = []

    def count(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(get_engine(), "before_cursor_execute", count)
    try:
        with transaction() as session:
            before = len(asked)
            found = progress.runs(session, jobs)
            assert len(asked) == before + 1
    finally:
        event.remove(get_engine(), "before_cursor_execute", count)
    assert [len(found[one]) > 0 for one in jobs] == [True] * 5
    assert {run.kind for run in found[jobs[1]]} >= {"register", "pair", "judge"}


@pytest.mark.usefixtures("database")
def test_a_failed_job_stays_where_it_was() -> None:
    def crash(lease: Lease) -> Result:
        raise kernel.JobFailure("broken", "It is broken", "on purpose", "user")

    job_id = make_job()
    drain(job_id, with_run("judge", crash))
    assert job(job_id).state == "failed"
    told = read(job_id)
    assert 0.5 < told.share < 1 and told.stage is None and told.eta_seconds is None


def read(job_id: str) -> JobProgress:
    with transaction() as session:
        found = progress.runs(session, [job_id])[job_id]
        told = progress.progress(session.get_one(Job, job_id), found)
    assert told.eta_seconds is None or math.isfinite(told.eta_seconds)
    assert helpers.job(job_id).state in ("succeeded", "failed") or told.eta_basis
    return told
