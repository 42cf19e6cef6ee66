"""A process ends in the middle of a job: it finishes, with the counts of an undisturbed run."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from selftaught.cli import app
from selftaught.client import ApiError, Client, Job
from selftaught.contracts import EventOut
from selftaught.stack import state
from selftaught.stack.handle import Stack

Json = dict[str, Any]


def counts(job: Job) -> dict[tuple[int, str], Json]:
    """Every stage's counts, by iteration and kind."""
    return {
        (iteration.number, stage.kind): stage.counts
        for iteration in job.iterations()
        for stage in iteration.stages
    }


@pytest.fixture(scope="module")
def undisturbed(stack: Stack, datasets: dict[str, str]) -> dict[tuple[int, str], Json]:
    from tests.system.conftest import TINY

    with Client(stack.gateway_url) as client:
        job = client.jobs.create(
            datasets["instructions"],
            labelled_dataset=datasets["labelled"],
            overrides=TINY,
            model="undisturbed",
        )
        return counts(job.wait(900))


def await_event(job: Job, match: Callable[[EventOut], bool]) -> EventOut:
    """The first event that matches, as soon as it is there."""
    deadline = time.monotonic() + 900
    seen = 0
    while time.monotonic() < deadline:
        for event in job.events(after=seen, follow=False):
            seen = event.seq
            if match(event):
                return event
            assert not event.type.startswith("job.failed"), event
        time.sleep(0.02)
    raise AssertionError("the moment never came")


def started(kind: str) -> Callable[[EventOut], bool]:
    return lambda event: (
        event.type == "stage.started"
        and event.data["stage"] == kind
        and event.data["iteration"] == 1
    )


def kill_generator(stack: Stack, client: Client, job: Job) -> None:
    await_event(job, started("judge"))
    stack.kill("generator1")


def kill_training_child(_stack: Stack, client: Client, job: Job) -> None:
    event = await_event(job, lambda event: event.type == "train.started")
    os.kill(event.data["pid"], signal.SIGKILL)


def kill_trainer(stack: Stack, client: Client, job: Job) -> None:
    await_event(job, lambda event: event.type == "train.started")
    stack.kill("trainer1")


def kill_evaluator(stack: Stack, client: Client, job: Job) -> None:
    await_event(job, started("validate"))
    stack.kill("evaluator-worker")
    stack.kill("evaluator")


def kill_redis(stack: Stack, client: Client, job: Job) -> None:
    await_event(job, started("judge"))
    stack.kill("redis")


def stop_trainer(stack: Stack, client: Client, job: Job) -> None:
    """As a deployment does it: told to stop, started anew."""
    await_event(job, lambda event: event.type == "train.started")
    stack.process("trainer1").terminate()
    await_event(job, lambda event: event.type == "chunk.returned")


def pause_training(stack: Stack, client: Client, job: Job) -> None:
    """From the command line; nobody trains while it is paused."""
    event = await_event(job, lambda event: event.type == "train.started")
    asked = ["--home", str(stack.config.home)]
    result = CliRunner().invoke(app, ["jobs", "pause", job.id, *asked])
    assert result.output.strip() == f"{job.id} is pausing", result.output
    await_event(job, lambda event: event.type == "job.paused")
    assert not psutil.pid_exists(event.data["pid"]), "the training has ended"
    result = CliRunner().invoke(app, ["jobs", "resume", job.id, *asked])
    assert result.output.strip() == f"{job.id} is running", result.output


def stop_everything(stack: Stack, client: Client, job: Job) -> None:
    """As a deployment does it: all that is ours is told to stop, in the middle; it obeys."""
    await_event(job, started("judge"))
    names = [name for name, of in processes(stack).items() if name not in ("postgres", "redis")]
    assert {"gateway", "evaluator", "relay", "generator1", "trainer1"} < set(names)
    log = Path(stack.config.home) / "logs" / "supervisor.log"
    before = len(log.read_text())
    for name in names:
        stack.process(name).terminate()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        said = log.read_text()[before:]
        ended = dict(re.findall(r"(\S+) ended with status (-?\d+)", said))
        if set(names) <= set(ended) and responds(client):
            assert ended == dict.fromkeys(names, "0")
            return
        time.sleep(0.1)
    raise AssertionError(f"not all stopped: {said}")


def processes(stack: Stack) -> dict[str, Json]:
    record = state.read(Path(stack.config.home))
    assert record is not None
    return {str(one["name"]): dict(one) for one in record["processes"]}


def responds(client: Client) -> bool:
    try:
        return bool(client.call("GET", "/readyz"))
    except (httpx.TransportError, ApiError):
        return False


@pytest.mark.parametrize(
    "kill",
    [
        kill_generator,
        kill_training_child,
        kill_trainer,
        kill_evaluator,
        kill_redis,
        stop_trainer,
        pause_training,
        stop_everything,
    ],
)
def test_a_killed_process_costs_no_result(
    kill: Callable[[Stack, Client, Job], None],
    stack: Stack,
    client: Client,
    tiny_job: Any,
    undisturbed: dict[tuple[int, str], Json],
) -> None:
    job = tiny_job()
    kill(stack, client, job)
    assert counts(job.wait(900)) == undisturbed
    assert_nothing_twice(stack, job.id)


def assert_nothing_twice(stack: Stack, job_id: str) -> None:
    """One result a chunk, one artifact a result, one version an iteration, no gap in events."""
    engine = create_engine(stack.database_url)
    with engine.connect() as connection:

        def one(query: str) -> Any:
            return connection.execute(text(query), {"job": job_id}).one()

        chunks, succeeded = one(
            "SELECT count(*), count(*) FILTER (WHERE state = 'succeeded') "
            "FROM chunks WHERE job_id = :job"
        )
        assert chunks == succeeded
        artifacts, distinct = one(
            "SELECT count(artifact_id), count(DISTINCT artifact_id) FROM chunks WHERE job_id = :job"
        )
        assert artifacts == distinct
        trained, iterations = one(
            "SELECT count(*), (SELECT count(*) FROM iterations WHERE job_id = :job AND number > 0) "
            "FROM model_versions WHERE job_id = :job AND parent_id IS NOT NULL"
        )
        assert trained == iterations
        events, last = one("SELECT count(*), max(seq) FROM events WHERE job_id = :job")
        assert events == last
    engine.dispose()


def test_judge_answers_again_after_its_service_was_killed(
    stack: Stack, client: Client, undisturbed: dict[tuple[int, str], Json]
) -> None:
    stack.kill("evaluator")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            answer = client.judge("Repeat this: a b", "a b", "b a", model="undisturbed")
        except ApiError as error:
            assert error.status == 503, error
            time.sleep(0.5)
            continue
        assert answer.model.startswith("undisturbed:")
        return
    raise AssertionError("the judge service did not come back")
