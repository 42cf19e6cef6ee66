"""The trainer's chunks on a real Postgres: what a killed, stopped or cancelled training leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from selftaught import devices, jsonl, tenancy
from selftaught.artifacts import publish_rows, resolve
from selftaught.contracts import Recipe
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Device, ModelVersion
from selftaught.settings import get_settings
from selftaught.work import control, kernel
from selftaught.work.kernel import Lease, LeaseLost, Result, let_go
from selftaught.work.worker import Handler, run_one
from services.generator.tasks import run_curate
from services.trainer import tasks
from tests.collector import collector
from tests.traced import traced
from tests.work import helpers
from tests.work.test_hosts import no_room
from tests.work.test_totals import CALLER

pytestmark = pytest.mark.usefixtures("database")

TRAIN = {
    "steps": 40,
    "save_every": 10,
    "tokens_per_step": 400,
    "warmup_steps": 2,
    "learning_rate": 1e-3,
    "checkpoints": 1,
}
RECIPE: dict[str, Any] = {
    "base_model": "smallworld",
    "chunk_size": 8,
    "judge": {"template": "smallworld"},
    "validate": {"instructions": 4, "max_tokens": 24},
}


def pair(lease: Lease) -> Result:
    rows = [
        {"id": f"{lease.iteration}.{i}", "instruction": f"say {i}", "chosen": "a", "rejected": "b"}
        for i in range(lease.input["limit"])
    ]
    return Result(artifact=publish_rows("pairs", lease.path("pair"), rows))


def judge(lease: Lease) -> Result:
    """One right and one wrong judgment of every pair in each order."""
    rows = [
        {
            "pair_id": row["id"],
            "order": order,
            "text": f"Answer: a. [[{letter}]]",
            "verdict": letter,
            "completion_tokens": 6,
        }
        for row in jsonl.read(resolve(lease.input["pairs"]))
        for order in ("AB", "BA")
        for letter in "AB"
    ]
    return Result(artifact=publish_rows("judgments", lease.path("judge"), rows))


HANDLERS = {
    **helpers.HANDLERS,
    "pair": Handler(pair),
    "judge": Handler(judge),
    "curate": Handler(run_curate),
    "register": Handler(tasks.register, tasks.apply_register),
    "train": Handler(tasks.train, tasks.apply_train, tasks.undo_train),
}


def job_before_training(iterations: int = 1, **train: Any) -> tuple[str, str]:
    """(job, its chunk that is ready to train)."""
    job = helpers.make_job(iterations, **RECIPE, train={**TRAIN, **train})
    helpers.drain(job, HANDLERS, until="train")
    return job, helpers.ready(job)[0]


def versions(job: str) -> list[ModelVersion]:
    with transaction() as session:
        found = select(ModelVersion).where(ModelVersion.job_id == job)
        return list(session.scalars(found.order_by(ModelVersion.number)))


def unfinished() -> list[Path]:
    return list(get_settings().versions_dir.glob(".*"))


def events(job: str, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in helpers.events(job) if event.type == kind]


def start(job: str, chunk: str) -> tuple[threading.Thread, int]:
    """Train in a thread, until something is saved; the thread and the child's pid."""
    before = len(pids(job))
    worker = threading.Thread(target=run_one, args=(chunk, "test", HANDLERS))
    worker.start()
    state = f".{chunk}.*/run/state.pt"
    while not list(get_settings().versions_dir.glob(state)) or len(pids(job)) == before:
        assert worker.is_alive(), helpers.job(job).error
        time.sleep(0.01)
    return worker, pids(job)[-1]


def pids(job: str) -> list[int]:
    return [event["pid"] for event in events(job, "train.started")]


def kill(job: str, chunk: str) -> None:
    worker, pid = start(job, chunk)
    os.kill(pid, signal.SIGKILL)
    worker.join()


def stop_worker(job: str, chunk: str) -> None:
    """A worker that is told to stop gives its chunk back."""
    worker, _ = start(job, chunk)
    row = helpers.chunk(chunk)
    assert row.lock_token is not None
    recipe = Recipe.model_validate(helpers.job(job).recipe)
    own = (chunk, row.lock_token, "default", job, "", 1, row.kind, row.attempt, row.input, recipe)
    let_go(Lease(*own))
    worker.join()


@pytest.mark.parametrize("disturb", [kill, stop_worker])
def test_the_next_attempt_goes_on_and_makes_the_same_version(disturb: Any) -> None:
    undisturbed, _ = job_before_training()
    helpers.drain(undisturbed, HANDLERS)
    job, chunk = job_before_training()
    disturb(job, chunk)
    assert helpers.chunk(chunk).state == "ready"
    assert len(unfinished()) == 1
    helpers.drain(job, HANDLERS)
    assert helpers.job(job).state == "succeeded"
    [resumed] = events(job, "train.resumed")
    assert resumed["step"] >= 10 and resumed["steps"] == 40
    [made], [twin] = versions(job)[-1:], versions(undisturbed)[-1:]
    assert made.lineage["train"]["resumed_from"] == resumed["step"]
    assert made.lineage["train"]["curve"] == twin.lineage["train"]["curve"]
    assert weights(made) == weights(twin)
    assert unfinished() == []


def test_a_worker_that_was_frozen_takes_nothing_from_the_next() -> None:
    """It wakes where it would take over the run of the attempt before: a living one's by now."""
    job, chunk = job_before_training(steps=100_000)
    frozen = kernel.claim(chunk, "frozen")
    assert frozen is not None
    with transaction() as session:
        session.execute(text("UPDATE chunks SET lock_expires_at = now() - interval '1 s'"))
    assert kernel.reap() == 1
    worker, _ = start(job, chunk)
    (running,) = unfinished()
    with pytest.raises(LeaseLost):
        tasks.train(frozen)
    assert unfinished() == [running] and (running / "run" / "state.pt").exists()
    with transaction() as session:
        control.cancel_job(session, job)
    worker.join()
    assert helpers.chunk(chunk).state == "cancelled" and helpers.chunk(chunk).attempt == 2


def test_a_paused_training_goes_on_from_its_saved_state() -> None:
    job, chunk = job_before_training(steps=100_000)
    worker, _ = start(job, chunk)
    with transaction() as session:
        control.pause_job(session, job)
    worker.join()
    assert helpers.job(job).state == "paused" and helpers.chunk(chunk).attempt == 0
    (left,) = unfinished()
    with tenancy.inside("another"):
        tasks._sweep(get_settings().versions_dir)  # as everybody's trainings do
    assert unfinished() == [left]
    with transaction() as session:
        control.resume_job(session, job)
    worker, _ = start(job, chunk)
    while not (resumed := events(job, "train.resumed")):
        assert worker.is_alive()
        time.sleep(0.01)
    assert resumed[0]["step"] >= 10
    with transaction() as session:
        control.cancel_job(session, job)
    worker.join()
    assert unfinished() == []


def test_a_training_without_room_for_its_state_is_tried_again_later() -> None:
    job, chunk = job_before_training(steps=2, save_every=1)
    with no_room(100_000):  # the child has the limit, too
        assert run_one(chunk, "test", HANDLERS) is False
    [said] = events(job, "chunk.requeued")
    assert said["error"]["code"] == "storage_full" and said["delay_seconds"] > 0
    (left,) = unfinished()
    assert [path.name for path in (left / "run").iterdir()] == [], "no half of a file"
    helpers.drain(job, HANDLERS)
    assert helpers.job(job).state == "succeeded" and unfinished() == []


def test_a_training_is_in_its_jobs_trace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The child sends a span of its own; what it writes are lines with the job's id."""
    job, chunk = job_before_training(steps=2, save_every=1)
    monkeypatch.setenv("SELFTAUGHT_LOG_FORMAT", "json")
    monkeypatch.setenv("SELFTAUGHT_ROLE", "trainer1")
    with collector() as found, traced() as exporter:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        capfd.readouterr()
        assert run_one(chunk, "test", HANDLERS, CALLER)
        spans = found.wait(lambda spans: any(span.name == "train" for span in spans))
        (child,) = (span for span in spans if span.name == "train")
        (own,) = (one for one in exporter.get_finished_spans() if one.name == "process train")
    assert (child.service, child.name, child.trace) == ("trainer1", "train", CALLER[3:35])
    assert own.context is not None and child.parent == f"{own.context.span_id:016x}"
    assert {span.parent for span in spans if span is not child} <= {child.id}
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert all(line["job_id"] == job for line in lines), "and no progress bars"


def test_a_training_on_two_devices_is_that_on_one() -> None:
    """Here two processes share the CPU, which counts as many devices as are asked for."""
    devices.register(get_settings().node, ["cpu"])
    found = []
    for count in (1, 2):
        job = helpers.make_job(1, **RECIPE, train={**TRAIN, "steps": 4, "devices": count})
        helpers.drain(job, HANDLERS)
        assert helpers.job(job).error is None
        found.append(versions(job)[-1].lineage)
    one, two = found
    assert two["recipe"]["train"]["devices"] == 2
    losses = [[point["loss"] for point in of["train"]["curve"]] for of in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert two["train"]["device_seconds"] > 0
    assert unfinished() == []
    with transaction() as session:
        assert session.scalars(select(Device.holder)).all() == [None]


def test_a_killed_training_on_two_devices_is_gone_on_with() -> None:
    undisturbed, _ = job_before_training(devices=2)
    helpers.drain(undisturbed, HANDLERS)
    job, chunk = job_before_training(devices=2)
    kill(job, chunk)
    assert helpers.chunk(chunk).state == "ready"
    helpers.drain(job, HANDLERS)
    [resumed] = events(job, "train.resumed")
    (twin,), (made,) = versions(undisturbed)[-1:], versions(job)[-1:]
    assert made.lineage["train"]["resumed_from"] == resumed["step"] > 0
    assert made.lineage["train"]["curve"] == twin.lineage["train"]["curve"]
    assert weights(made) == weights(twin)
    assert unfinished() == []


def test_a_recipe_that_needs_bitsandbytes_fails_before_anything_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it fails
    job = helpers.make_job(1, **RECIPE, train={**TRAIN, "method": "lora", "quantize": "nf4"})
    helpers.drain(job, HANDLERS)
    error = helpers.job(job).error
    assert error is not None
    assert (error["code"], error["fault"]) == ("quantization_unavailable", "user")
    assert versions(job) == []


def weights(version: ModelVersion) -> bytes:
    return (get_settings().versions_dir / version.path / "model.safetensors").read_bytes()


def test_a_cancelled_training_leaves_nothing() -> None:
    job, chunk = job_before_training(steps=100_000)
    worker, _ = start(job, chunk)
    with transaction() as session:
        control.cancel_job(session, job)
    worker.join()
    assert helpers.job(job).state == "cancelled"
    assert unfinished() == []


def test_what_a_failed_job_left_goes_with_the_next_training() -> None:
    job, chunk = job_before_training()
    for _ in range(get_settings().max_attempts):
        kill(job, chunk)
    assert helpers.job(job).state == "failed"
    assert len(unfinished()) == 1
    other, _ = job_before_training(steps=2)
    helpers.drain(other, HANDLERS)
    assert helpers.job(other).state == "succeeded"
    assert unfinished() == []


@pytest.mark.parametrize(
    ("start_at", "parents"), [("seed", [None, 0, 0]), ("previous", [None, 0, 1])]
)
def test_lineage_says_what_a_version_was_trained_from(
    start_at: str, parents: list[int | None]
) -> None:
    job = helpers.make_job(2, **RECIPE, train={**TRAIN, "steps": 3, "start": start_at})
    helpers.drain(job, HANDLERS)
    made = versions(job)
    names = {version.id: version.number for version in made}
    assert [version.parent_id and names[version.parent_id] for version in made] == parents
    assert [version.lineage["trained_from"] for version in made[1:]] == [
        made[parent].ref for parent in parents if parent is not None
    ]
    told = [version.lineage["train"]["start"] for version in made[1:]]
    assert told == ["seed", start_at]  # before the first version there is only the seed


def test_sft_dpo_trains_on_the_preferences_that_curation_published() -> None:
    job = helpers.make_job(1, **RECIPE, train={**TRAIN, "steps": 3, "objective": "sft_dpo"})
    helpers.drain(job, HANDLERS)
    assert helpers.job(job).error is None
    lineage = versions(job)[-1].lineage
    assert lineage["counts"]["1.curate"]["preference_pairs"] == 16
    assert (lineage["train"]["objective"], lineage["train"]["examples"]) == ("sft_dpo", 16)
    with transaction() as session:
        [artifact] = session.scalars(select(Artifact).where(Artifact.kind == "preferences"))
    assert artifact.rows == 16
    rows = list(jsonl.read(resolve(artifact.path)))
    assert {(row["chosen"] != row["rejected"], row["label"]) for row in rows} == {
        (True, "A"),
        (True, "B"),
    }


def test_preferences_can_be_published_for_others_and_are_not_made_unasked() -> None:
    for asked, expected in ((True, ["preferences"]), (False, [])):
        job = helpers.make_job(1, **RECIPE, train=TRAIN, curate={"preferences": asked})
        helpers.drain(job, HANDLERS, until="train")
        with transaction() as session:
            mine = Artifact.path.startswith(f"jobs/{job}/1/")
            kinds = session.scalars(select(Artifact.kind).where(mine)).all()
        assert [kind for kind in kinds if kind == "preferences"] == expected
        assert "examples" in kinds


def test_no_wrong_judgment_means_nothing_to_train_sft_dpo_on() -> None:
    def only_right(lease: Lease) -> Result:
        rows = [
            {
                "pair_id": row["id"],
                "order": order,
                "text": f"[[{order[0]}]]",
                "verdict": order[0],
                "completion_tokens": 6,
            }
            for row in jsonl.read(resolve(lease.input["pairs"]))
            for order in ("AB", "BA")
        ]
        return Result(artifact=publish_rows("judgments", lease.path("judge"), rows))

    job = helpers.make_job(1, **RECIPE, train={**TRAIN, "objective": "sft_dpo"})
    helpers.drain(job, {**HANDLERS, "judge": Handler(only_right)})
    error = helpers.job(job).error
    assert error is not None and error["code"] == "no_usable_rows"
