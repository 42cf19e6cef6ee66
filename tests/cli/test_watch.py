"""`jobs watch`: it outlives gateways, tells each event once and leaves the job alone."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from selftaught.cli.lines import Lines, _scored
from selftaught.cli.output import out
from selftaught.cli.watch import Event
from selftaught.database import transaction
from selftaught.database.tables import Chunk
from selftaught.work import control, pipeline
from tests.cli.conftest import Command, Gateway
from tests.work.helpers import drain, job, make_job, ready

SECONDS = 30


def lines_until(stream: Any, wanted: str) -> list[str]:
    """Lines of a stream up to the one that has these words."""
    found: list[str] = []
    while wanted not in "".join(found):
        line = stream.readline()
        assert line, found
        found.append(line)
    return found


def test_each_event_once_through_a_gateway_that_goes_and_comes_back(
    gateway: Gateway, run: Command
) -> None:
    job_id = make_job(iterations=2)
    drain(job_id, until="validate")
    with run.start("jobs", "watch", job_id, "--json") as watching:
        told = lines_until(watching.stdout, '"stage": "validate", "chunks"')
        gateway.stop()
        assert "the gateway is away" in lines_until(watching.stderr, "reconnecting in 1 s")[0]
        drain(job_id)
        gateway.start()
        rest, said = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 0, said
    assert "the gateway is back\n" in said and f"{job_id} succeeded after" in said
    events = [json.loads(line) for line in "".join([*told, rest]).splitlines()]
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "job.succeeded"
    page = gateway.get(f"/v1/jobs/{job_id}/events?limit=100")
    assert events[: len(page["data"])] == page["data"], "the API's own JSON"


def test_without_a_terminal_there_are_lines(gateway: Gateway, run: Command) -> None:
    job_id = make_job()
    drain(job_id)
    said, notes = run("jobs", "watch", job_id)
    assert "iteration 0: select started, chunks: 1\n" in said
    assert "iteration 1: judge done: judge rows 16\n" in said
    assert said.splitlines()[-1].endswith("job succeeded")
    assert notes.splitlines()[-1] == "ask it: selftaught judge --model kernel-test INSTRUCTION A B"


def test_it_ends_as_the_job_ends(gateway: Gateway, run: Command) -> None:
    job_id = make_job()
    with run.start("jobs", "watch", job_id) as watching:
        lines_until(watching.stdout, "register started")
        with transaction() as session:
            pipeline.fail_job(
                session, pipeline.lock_job(session, job_id),
                {"title": "t", "code": "disk_full", "detail": "no room", "fault": "system"},
            )  # fmt: skip
        said, notes = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 1
    assert "job failed: no room (disk_full)" in said
    assert f"error: {job_id} failed: no room (disk_full)\n" in notes
    assert notes.endswith(f"it may go better again: selftaught jobs retry {job_id}\n")
    other = make_job()
    with transaction() as session:
        control.cancel_job(session, other)
    assert f"error: {other} cancelled\n" in run("jobs", "watch", other, code=1)[1]


def test_ctrl_c_leaves_the_job_alone(gateway: Gateway, run: Command) -> None:
    job_id = make_job()
    with run.start("jobs", "watch", job_id) as watching:
        lines_until(watching.stdout, "register started")
        watching.send_signal(signal.SIGINT)
        _, notes = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 130
    assert f"{job_id} goes on without you" in notes and f"jobs cancel {job_id}" in notes
    assert job(job_id).state == "running" and ready(job_id)


def test_a_gateway_that_was_never_there_is_not_waited_for(run: Command) -> None:
    away = {"SELFTAUGHT_URL": "http://127.0.0.1:1"}
    _, notes = run("jobs", "watch", "job_x", code=1, **away)
    assert notes.startswith("error: no gateway at http://127.0.0.1:1")
    assert "selftaught up" in notes


def test_a_job_that_is_gone_by_then_ends_it(gateway: Gateway, run: Command) -> None:
    assert "404 job_not_found" in run("jobs", "watch", "job_none", code=1)[1]


@contextmanager
def terminal(run: Command, *arguments: str) -> Iterator[tuple[Any, Any]]:
    """The command on a terminal of 100 x 40, and what reads its screen until it has some words."""
    master, slave = pty.openpty()
    import fcntl
    import struct
    import subprocess
    import sys
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "selftaught.cli", *arguments],
        env={**run.env, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    screen = ""

    def until(wanted: str) -> str:
        nonlocal screen
        deadline = time.monotonic() + SECONDS
        while wanted not in screen:
            assert time.monotonic() < deadline, (wanted, screen[-2000:])
            if select.select([master], [], [], 0.2)[0]:
                try:
                    screen += os.read(master, 65536).decode()
                except OSError:  # the other side has gone
                    assert wanted in screen, (wanted, screen[-2000:])
        return screen

    try:
        yield process, until
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_on_a_terminal_it_shows_bars_and_that_it_reconnects(gateway: Gateway, run: Command) -> None:
    job_id = make_job()
    drain(job_id, until="judge")
    with terminal(run, "jobs", "watch", job_id) as (process, until):
        until("> judge")
        until("0/4")
        with transaction() as session:
            assert session.get_one(Chunk, ready(job_id)[0]).kind == "judge"
        gateway.stop()
        until("reconnecting, try 2")
        drain(job_id)
        gateway.start()
        until(f"{job_id} succeeded after")
        assert process.wait(SECONDS) == 0


def test_of_much_progress_every_tenth_part_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(out)
    stamp = "2026-11-27T09:04:10Z"
    for done in range(1, 1000):
        data = {"stage": "judge", "done": done, "of": 1000}
        lines.tell(
            Event({"seq": done, "type": "stage.progress", "data": data, "created_at": stamp})
        )
    told = capsys.readouterr().out.splitlines()
    assert told == [f"09:04:10  judge {tenth}00/1000" for tenth in range(1, 10)]


def test_texts_of_others_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"detail": "\x1b[2Jgone\r\x07", "code": "x"}
    body = {"seq": 1, "type": "job.failed", "data": data, "created_at": "2026-11-27T09:04:10Z"}
    Lines(out).tell(Event(body))
    said = capsys.readouterr().out
    assert "gone" in said and not {"\x1b", "\r", "\x07"} & set(said)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.5, 0.7), ", better than the seed"),
        ((0.1, 0.3), ", worse than the seed"),
        ((0.3, 0.5), ", no difference from the seed can be seen"),
    ],
)
def test_a_version_is_told_against_the_seed(interval: tuple[float, float], words: str) -> None:
    def row(iteration: int, ci95: tuple[float, float]) -> dict[str, object]:
        accuracy = sum(ci95) / 2
        return {
            "iteration": iteration,
            "model_version": f"m:{iteration}",
            "promoted": True,
            "strict_accuracy": accuracy,
            "ci95": ci95,
        }

    seed = row(0, (0.3, 0.5))
    assert _scored(row(1, interval), seed).endswith(words)
    assert _scored(seed, seed).endswith("(0.3000 to 0.5000)")
