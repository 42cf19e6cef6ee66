"""What the platform adds to a job: the seconds of its stages' own work, by the job's wall time.

    python -m benchmarks.overhead

One iteration of the quickstart job with the shipped seed on 675 instructions, a quarter of its own,
with training steps and held-out instructions in proportion, on a stack with one worker of each kind
that has run a small job before. What a job costs however small it is weighs four times as much as
on the quickstart itself. Wall time is from the job's creation to its end. Own work is counted in
two ways, by Postgres's clock, overlaps once:

- *chunks*: a worker holds a chunk, from its lease to its applied result. What is left is the way
  between: the outbox, the relay's beat, Redis, and planning.
- *work alone*: of a training only from its first step to its last checkpoint. What is left is, as
  well, its process: start, imports, the model and the examples, publishing the version.

The peer is a job without a platform, all of whose time is own work: 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.frame import PAIRS, Row, publish
from benchmarks.many_jobs import connect
from benchmarks.quickstart import opened, post

INSTRUCTIONS = 675
AT_LEAST = 0.9
Span = tuple[float, float]

CHUNKS = """
    SELECT chunks.kind, extract(epoch FROM chunks.started_at - jobs.created_at)::float8,
        extract(epoch FROM chunks.finished_at - jobs.created_at)::float8
    FROM chunks JOIN jobs ON jobs.id = job_id WHERE job_id = %s
"""
TRAINING = """
    SELECT extract(epoch FROM min(events.created_at) - jobs.created_at)::float8
            - coalesce(max((data->>'step_seconds')::float8), 0),
        extract(epoch FROM max(events.created_at) - jobs.created_at)::float8
    FROM events JOIN jobs ON jobs.id = job_id
    WHERE job_id = %s AND type IN ('train.step', 'train.checkpoint') GROUP BY jobs.created_at
"""


@dataclass(frozen=True)
class Run:
    """Where a job's seconds went."""

    wall: float
    chunks: float
    alone: float
    training: float
    """Of the training's chunk, what is no step and no checkpoint."""
    spans: int


def main() -> None:
    """Measure and publish."""
    with opened() as (stack, client):
        runs = []
        for number in range(PAIRS):
            job = post(client, INSTRUCTIONS, f"overhead-{number}")
            ended = job.wait(1_800)
            assert ended.finished_at is not None
            wall = (ended.finished_at - ended.created_at).total_seconds()
            with connect(stack.database_url) as connection:
                chunks = connection.execute(CHUNKS, [job.id]).fetchall()
                (training,) = connection.execute(TRAINING, [job.id]).fetchall()
            runs.append(counted(wall, [_held(one) for one in chunks], _span(training)))
            print(f"run {number + 1} of {PAIRS}: {runs[-1]}", flush=True)
    ones = [1.0] * PAIRS
    peer = "a job without a platform"
    crossed = runs[0].spans
    between = sum(run.wall - run.chunks for run in runs) / PAIRS
    around = sum(run.training for run in runs) / PAIRS
    told = ", ".join(f"{run.wall:.1f}" for run in runs)
    publish(
        "overhead",
        [
            Row(
                "own work by wall time, chunks",
                peer,
                "",
                [run.chunks / run.wall for run in runs],
                ones,
                at_least=AT_LEAST,
            ),
            Row(
                "own work by wall time, work alone",
                peer,
                "",
                [run.alone / run.wall for run in runs],
                ones,
            ),
        ],
        notes=[
            f"{INSTRUCTIONS} instructions, wall time {told} s. Between chunks {between:.2f} s a "
            f"job: {crossed} chunks, one after another, {1000 * between / crossed:.0f} ms each, of "
            "which the relay's beat (SELFTAUGHT_RELAY_SECONDS, 0.2) is 100 on average.",
            f"Around the training's steps {around:.1f} s a job: a process of its own, which starts "
            "Python, imports torch and transformers, loads the model and the examples; its weights "
            "are hashed and published. It frees all memory for certain and may be killed at any "
            "time; who trains by a script pays most of it as well. It is as much for a training of "
            "hours.",
        ],
        packages=["torch", "transformers", "celery"],
    )


def counted(wall: float, chunks: list[tuple[str, Span]], steps: Span) -> Run:
    """`steps`: from the training's first to its last checkpoint."""
    others = [span for kind, span in chunks if kind != "train"]
    held = covered(span for _, span in chunks)
    alone = covered([*others, steps])
    return Run(wall, held, alone, held - alone, len(chunks))


def covered(spans: Iterable[Span]) -> float:
    """Length of the union of spans: seconds in which at least one is open."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _span(row: tuple[object, ...]) -> Span:
    begin, end = (float(str(one)) for one in row)
    return begin, end


def _held(row: tuple[object, ...]) -> tuple[str, Span]:
    kind, *span = row
    return str(kind), _span(tuple(span))


if __name__ == "__main__":
    main()
