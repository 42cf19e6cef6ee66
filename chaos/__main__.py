"""`python -m chaos`: a quiet run, then the same work under faults, then what is the difference.

Ends with status 1 if anything was lost, applied twice, different, or failed without a typed reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine

from chaos import snapshot
from chaos.check import Found, check
from chaos.inject import Done, Injector
from chaos.plan import plan
from chaos.report import line, tell
from chaos.workload import Workload
from selftaught.stack.handle import Stack

LEASE = 6.0
ENV = {
    "SELFTAUGHT_LEASE_SECONDS": f"{LEASE:.0f}",
    "SELFTAUGHT_HEARTBEAT_SECONDS": "1",
    "SELFTAUGHT_RERING_SECONDS": "3",
    # Chunks meet far more faults than in a life; none of them is the chunk's own.
    "SELFTAUGHT_MAX_ATTEMPTS": "100",
}
SETTLE_SECONDS = 20.0

Json = dict[str, Any]


@dataclass
class Run:
    """One home: what was done in it, and what was found there."""

    home: Path
    stack: Stack
    work: Workload
    seconds: float = 0.0
    jobs: dict[str, Json] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    dead_tokens: dict[str, str] = field(default_factory=dict)
    faults: list[Done] = field(default_factory=list)
    ended_by: str = ""
    stuck: bool = False


def main() -> int:
    """Both runs and their comparison; the exit status."""
    options = _options()
    base = options.home.resolve()
    for name in ("quiet", "faults"):
        shutil.rmtree(base / name, ignore_errors=True)
    say(f"chaos: seed {options.seed}, {options.faults} faults or {options.seconds:.0f} s")
    say("one round without faults, to compare with")
    quiet = _run(base / "quiet", options.patience, lambda run: run.work.round(0))
    say(f"done in {quiet.seconds:.0f} s; now the same, again and again, under faults")

    def disturbed(run: Run) -> None:
        run.work.expected = quiet.work.answers
        _under_faults(run, options)

    faults = _run(base / "faults", options.seconds + options.patience, disturbed)
    differences = compare(quiet, faults)
    ok = tell(quiet, faults, differences, options, base / "chaos.json")
    return 0 if ok else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the plan of faults")
    parser.add_argument("--faults", type=int, default=200, help="end after so many")
    parser.add_argument("--seconds", type=float, default=1800, help="or after so long")
    parser.add_argument("--pace", type=float, default=5.0, help="seconds from fault to fault")
    parser.add_argument("--patience", type=float, default=900, help="seconds to finish afterwards")
    parser.add_argument("--home", type=Path, default=Path(".chaos"), help="folder of both runs")
    return parser.parse_args()


def _run(home: Path, patience: float, body: Callable[[Run], None]) -> Run:
    """Start a stack, work, wait until it is still, look at everything, stop it.

    What has not ended `patience` seconds after the start is stuck, and the check will say so.
    """
    home.mkdir(parents=True)
    env = {**ENV, "SELFTAUGHT_MODELS_DIR": str(home / "models")}
    stack = Stack(home, generator_workers=2, trainer_workers=2, env=env)
    run = Run(home, stack, Workload(stack, home))
    with stack:
        began = time.monotonic()
        run.work.prepare()
        threads = run.work.background()
        working = threading.Thread(target=_noting, args=(run, body), daemon=True)
        working.start()
        working.join(patience)
        run.stuck = working.is_alive()
        run.work.finish()
        for thread in threads:
            thread.join(60)
        run.seconds = time.monotonic() - began
        _look(run)
    return run


def _noting(run: Run, body: Callable[[Run], None]) -> None:
    """A workload that gives up is a finding like any other."""
    try:
        body(run)
    except Exception as error:  # noqa: BLE001
        run.found.add("the workload gave up", repr(error)[:500])


def _under_faults(run: Run, options: argparse.Namespace) -> None:
    """Rounds until there were enough faults; the last one ends in peace."""
    injector = Injector(run.stack, lambda done: say(line(done)))
    enough = threading.Event()

    def until(count: int) -> bool:
        over = time.monotonic() - injector.started >= options.seconds
        if count >= options.faults or over:
            run.ended_by = "its time" if over else "its number of faults"
            enough.set()
        return enough.is_set()

    with ThreadPoolExecutor(1) as pool:
        faults: Future[None] = pool.submit(
            injector.run, plan(options.seed, options.pace, LEASE), until
        )
        try:
            number = 0
            while not enough.is_set() and not faults.done():
                run.work.round(number)
                number += 1
                say(f"  round {number} has ended")
        finally:
            injector.stop()
            faults.result()
            injector.wake_all()
            run.faults, run.dead_tokens = injector.done, injector.dead_tokens


def _look(run: Run) -> None:
    """The check of the home, and a snapshot of every job of every round."""
    engine = create_engine(run.stack.database_url)
    deadline = time.monotonic() + SETTLE_SECONDS
    before = run.found.broken
    with engine.connect() as connection:
        while True:
            found = check(connection, run.home, run.work.known, run.work.uploaded, run.dead_tokens)
            connection.rollback()
            if not found.broken or time.monotonic() > deadline:
                break
            time.sleep(1.0)
        found.broken = before + found.broken
        _collect(run, connection, found)
        run.found = found
        for name, one in run.work.known.items():
            if name.startswith("r") and not one.startswith("ds_"):
                run.jobs[name] = snapshot.job(connection, one, run.home / "artifacts")
    engine.dispose()


def _collect(run: Run, connection: Connection, found: Found) -> None:
    """`selftaught gc` removes what crashes left, and nothing that a row names."""
    command = [sys.executable, "-m", "selftaught.cli", "gc", "--safe-hours", "0"]
    done = subprocess.run(
        [*command, "--home", str(run.home)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        found.add("the collector failed", (done.stdout + done.stderr)[-500:])
    known, uploaded = run.work.known, run.work.uploaded
    after = check(connection, run.home, known, uploaded, run.dead_tokens)
    connection.rollback()
    for sort, number in after.litter.items():
        found.add("files that the collector left", f"{number} {sort}")
    for one in set(after.broken) - set(found.broken):
        found.add("broken by the collector", one)


def compare(quiet: Run, faults: Run) -> list[str]:
    """Every difference between a round under faults and the quiet round."""
    told = []
    for name, found in faults.jobs.items():
        item = name.partition("/")[2]
        if item == "cancelled":
            continue  # when the cancel meets which chunk is another matter in every run
        wanted = quiet.jobs[f"r0/{item}"]
        told += [f"{name}{one}" for one in snapshot.differences(wanted, found)]
    for number in range(faults.work.rounds):
        items = {name.partition("/")[2] for name in quiet.jobs}
        told += [
            f"r{number} has no {item}" for item in items if f"r{number}/{item}" not in faults.jobs
        ]
    return told


def say(words: str) -> None:
    """A line, now."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    status = main()
    # Threads that wait for a stuck stack must not keep the process.
    sys.stdout.flush()
    os._exit(status)
