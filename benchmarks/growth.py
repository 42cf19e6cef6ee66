"""What grows with the work: 1, 4 and 16 times the instructions, and 1, 1,000 and 100,000 jobs.

    python -m benchmarks.growth

*Instructions.* One iteration of the quickstart job with the shipped seed on 64, 256 and 1,024
instructions (the recipe's own iteration has 2,700), training steps and held-out instructions in
proportion, chunks of 32 so that all sizes have full ones. Each turn has a fresh stack with one
worker of each kind that has run a small job before, so that imports and the first start are behind
it, and runs the sizes from the smallest to the largest: what a smaller job may have left in memory
counts against the larger one, never for it. Time is from the job's creation to its end, by
Postgres's clock. A job starts a training process of its own and crosses eleven stages whatever its
size: that is in the time, weighs most on the small job, and would hide growth, so what each
*further* instruction costs stands beside it. Memory is the kernel's own high-water mark of each
process since the job began (Postgres: the proportional share of all its processes, once a second).
The database's bytes are what it grew by.

*Jobs.* See benchmarks/many_jobs.py.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import many_jobs
from benchmarks.frame import PAIRS, Row, publish
from benchmarks.quickstart import opened, post
from selftaught.client import Client
from selftaught.stack.handle import Stack

SIZES = {"1x": 64, "4x": 256, "16x": 1_024}
CHUNK = 32
AT_MOST = 1.1
TICK = 1.0
MIB = 2**20


@dataclass(frozen=True)
class Run:
    """A job of some size."""

    seconds: float
    stored: float
    """Bytes by which the database grew."""
    peaks: dict[str, float]
    """Bytes of memory, by process."""


def main() -> None:
    """Measure and publish."""
    runs: dict[str, list[Run]] = defaultdict(list)
    rows_of_job: list[many_jobs.Rows] = []

    for _ in range(PAIRS):
        with opened() as (stack, client):
            for size, instructions in SIZES.items():
                run = measured(stack, client, instructions)
                runs[size].append(run)
                print(f"{size}: {instructions:,} instructions in {run.seconds:.1f} s", flush=True)
                if not rows_of_job:
                    (job,) = client.jobs.list(model="growth")
                    rows_of_job.append(many_jobs.rows_of(stack.database_url, job.id))
    latencies, databases = many_jobs.measure(rows_of_job[0])
    publish(
        "growth",
        [*times(runs), *memory(runs), *stored(runs), *latencies],
        notes=[
            "Instructions: seconds "
            + "; ".join(
                f"{size} ({SIZES[size]:,}) {', '.join(f'{run.seconds:.1f}' for run in of)}"
                for size, of in runs.items()
            )
            + ".",
            "A further instruction: (4x to 16x) against (1x to 4x), so that what every job costs, "
            "however small it is, falls out.",
            "The evaluator's worker judges held-out pairs in batches of up to 256 sequences, both "
            "orders of a pair two of them; the 1x job has 8 in all, the 16x job 152. With 8, 16, "
            "32, 64, 152, 256, 512 and 1,024 held-out pairs, one job after another on one stack, "
            "its peak was 505, 511, 525, 551, 575, 603, 620 and 634 MiB (half of them are the "
            "trainer's): it levels off once the batch is full. Changed for it: a batch's prompts "
            "are computed at most 4,096 positions at a time and no longer all at once; before, "
            "these were 508, 513, 525, 546, 590 (with 128), 692, 749, and short answers to 256 "
            "prompts took 1.1 to 1.2 times the CPU. What is left is the batch's keys and values. "
            "Tried: batches of 128, which would end at some 551 MiB (1.09), but take 1.09 times "
            "the CPU of 256 for the same 1,024 verdicts (1.45 times with 64; five turns), so 256 "
            "stays.",
            f"Jobs: {databases}; the medians of {many_jobs.CALLS} calls a turn, the rows copies "
            "of one real job's, VACUUM ANALYZE done as autovacuum would.",
        ],
        packages=["torch", "transformers", "psycopg", "fastapi"],
    )


def measured(stack: Stack, client: Client, instructions: int) -> Run:
    """Run the job."""
    before = database_bytes(stack)
    with Peaks(stack) as peaks:
        job = post(client, instructions, "growth", CHUNK).wait(1_800)
    assert job.finished_at is not None
    seconds = (job.finished_at - job.created_at).total_seconds()
    return Run(seconds, database_bytes(stack) - before, dict(peaks.found))


def database_bytes(stack: Stack) -> float:
    with many_jobs.connect(stack.database_url) as connection:
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert found is not None
    return float(str(found[0]))


def times(runs: dict[str, list[Run]]) -> list[Row]:
    """Milliseconds of an instruction, and of each further one."""
    took = {size: [run.seconds for run in runs[size]] for size in SIZES}
    each = {size: [1000 * one / SIZES[size] for one in took[size]] for size in SIZES}

    def further(small: str, large: str) -> list[float]:
        more = SIZES[large] - SIZES[small]
        return [1000 * (b - a) / more for a, b in zip(took[small], took[large], strict=True)]

    return [
        Row("time of an instruction, 16x", "1x", "ms", each["16x"], each["1x"], at_most=AT_MOST),
        Row("time of an instruction, 4x", "1x", "ms", each["4x"], each["1x"], at_most=AT_MOST),
        Row(
            "time of each further instruction, 16x",
            "4x",
            "ms",
            further("4x", "16x"),
            further("1x", "4x"),
        ),
    ]


def memory(runs: dict[str, list[Run]]) -> list[Row]:
    """Peak memory of each process."""
    small, large = runs["1x"], runs["16x"]
    return [
        Row(
            f"peak memory of {name}, 16x",
            "1x",
            "MiB",
            [run.peaks[name] / MIB for run in large],
            [run.peaks[name] / MIB for run in small],
            at_most=AT_MOST,
        )
        for name in sorted(small[0].peaks)
    ]


def stored(runs: dict[str, list[Run]]) -> list[Row]:
    """What the database grew by, for each instruction."""
    each = {size: [run.stored / SIZES[size] for run in runs[size]] for size in SIZES}
    return [Row("database of an instruction, 16x", "1x", "bytes", each["16x"], each["1x"])]


class Peaks(threading.Thread):
    """Peak memory of a stack's processes while the block runs, in `found` by name, in bytes."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(name="peaks", daemon=True)
        self.found: dict[str, float] = defaultdict(float)
        self._stack, self._done = stack, threading.Event()

    def __enter__(self) -> Peaks:
        for process in self._stack.record["processes"]:
            # Its high-water mark begins anew: proc(5), clear_refs.
            Path(f"/proc/{process['pid']}/clear_refs").write_text("5")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        self._look()

    def run(self) -> None:
        while not self._done.wait(TICK):
            self._look()

    def _look(self) -> None:
        for process in self._stack.record["processes"]:
            name, pid = process["name"], process["pid"]
            assert pid is not None, f"{name} does not run"
            children = psutil.Process(pid).children(recursive=True)
            if name == "postgres":
                pids = [pid, *(child.pid for child in children)]
                self._note(name, sum(kib(one, "smaps_rollup", "Pss") for one in pids))
                continue
            self._note(name, kib(pid, "status", "VmHWM"))
            for child in children:
                self._note(f"{name}'s child", kib(child.pid, "status", "VmHWM"))

    def _note(self, name: str, kibibytes: int) -> None:
        self.found[name] = max(self.found[name], 1024.0 * kibibytes)


def kib(pid: int, file: str, field: str) -> int:
    """A field of /proc/PID/FILE in KiB; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


if __name__ == "__main__":
    main()
