"""How far a job is and how long it will still take, from the seconds that its stages took.

The rules are few, so that they can be told and checked:

- Share: every iteration counts the same, and every stage in it. The stage under way counts by its
  chunks that are done; a training, which is one chunk, by its steps.
- A stage takes as long for a chunk as when the job last finished one of this kind, counted from
  when it was planned, so that waiting for a worker is in it. One that the job has never finished
  goes on at its own pace so far: by its chunks, and a training by the seconds of its steps.
- A stage that the job has never begun and that asks no model (`QUICK`) counts as nothing. If any
  other one is still to come, the end cannot be known, and none is told.

What they do not know: who else asks for the same workers, and that a stage stood still for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Float, Select, bindparam, case, cast, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from selftaught.contracts import TERMINAL, JobProgress, State
from selftaught.database.tables import Event, Iteration, Job, Stage
from selftaught.work.planning import last_iteration, stages

QUICK = frozenset({"select", "choose", "curate", "gate", "score", "sample"})


@dataclass(frozen=True)
class Run:
    """A job's newest stage of this kind in this state.

    seconds: from when it was planned to its end, or until now. steps: of a training under way, the
    share of its steps that it has told of, 0..1; steps_left: seconds that its other ones will take.
    """

    kind: str
    state: str
    iteration: int
    chunks: int
    chunks_done: int
    seconds: float
    steps: float | None = None
    steps_left: float | None = None

    @property
    def share(self) -> float:
        """What is done of it, 0..1."""
        if self.steps is not None:
            return min(1.0, self.steps)
        return self.chunks_done / self.chunks if self.chunks else 0.0

    @property
    def expected(self) -> float | None:
        """Seconds from its start to its end, if it goes on as it has so far; None: not known."""
        if self.steps is not None:
            return None if self.steps_left is None else self.seconds + self.steps_left
        return self.seconds / self.share if self.share > 0 else None


class _Unknown(Exception):
    """Why the end of a job cannot be known."""


@cache
def _runs() -> Select[Any]:
    """The query of :func:`runs`: making it takes as long as running it, so it is made once."""
    told = (
        select(Event.data)
        .where(
            Event.job_id == Stage.job_id,
            Event.type == "train.step",
            Event.created_at >= Stage.created_at,
        )
        .order_by(Event.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    training = (Stage.kind == "train") & (Stage.state == State.RUNNING)
    lasted = func.coalesce(Stage.finished_at, func.clock_timestamp()) - Stage.created_at
    which = (Stage.job_id, Stage.kind, Stage.state)
    return (
        select(
            Stage.job_id,
            Stage.kind,
            Stage.state,
            Iteration.number,
            Stage.chunks,
            Stage.chunks_done,
            cast(func.extract("epoch", lasted), Float),
            case((training, told)),
        )
        .join(Iteration, Iteration.id == Stage.iteration_id)
        .where(Stage.job_id.in_(bindparam("jobs", expanding=True)))
        .ext(distinct_on(*which))
        .order_by(*which, Iteration.number.desc())
    )


def runs(session: Session, job_ids: Sequence[str]) -> dict[str, list[Run]]:
    """The newest stage of each kind and state, by job; one query, a dozen rows a job."""
    found: dict[str, list[Run]] = {job_id: [] for job_id in job_ids}
    rows = session.execute(_runs(), {"jobs": list(job_ids)})
    for job_id, kind, state, number, chunks, done, seconds, step in rows:
        run = Run(kind, state, number, chunks, done, seconds, *_steps(step))
        found[job_id].append(run)
    return found


def _steps(told: dict[str, Any] | None) -> tuple[float | None, float | None]:
    """Of the event of a step: the share that is done, and the seconds of what is left."""
    if told is None:
        return None, None
    left = told["steps"] - told["step"]
    pace = told.get("step_seconds")
    return told["step"] / told["steps"], None if pace is None else left * pace


def progress(job: Job, found: Sequence[Run]) -> JobProgress:
    """How far a job is; `found`: its :func:`runs`."""
    last = last_iteration(job)
    number = max((run.iteration for run in found), default=0)
    here = [run for run in found if run.iteration == number]
    current = next((run for run in here if run.state != State.SUCCEEDED), None)
    done = len(here) - (current is not None)
    inside = (done + (current.share if current else 0.0)) / len(stages(job, number))
    share = 1.0 if job.state == State.SUCCEEDED else (number + inside) / (last + 1)
    out = JobProgress(share=round(share, 4), iteration=number, iterations=last)
    if job.state in TERMINAL or current is None:
        return out
    out.stage, out.chunks, out.chunks_done = current.kind, current.chunks, current.chunks_done
    if job.state != State.RUNNING:
        out.eta_basis = f"not known while the job is {job.state}"
        return out
    try:
        out.eta_seconds = round(_left(job, number, last, found, current), 1)
        out.eta_basis = _basis(found, current)
    except _Unknown as reason:
        out.eta_basis = f"not known yet: {reason}"
    return out


def _left(job: Job, number: int, last: int, found: Sequence[Run], current: Run) -> float:
    """Seconds until the job's end; raises _Unknown."""
    kinds = stages(job, number)
    seconds = _rest(current, _chunk_seconds(current.kind, found))
    seconds += _whole(kinds[kinds.index(current.kind) + 1 :], found)
    if number < last:
        seconds += (last - number) * _whole(stages(job, 2), found)
    return seconds


def _rest(current: Run, chunk_seconds: float) -> float:
    """Of the stage under way. What a training does before and after its steps is in the time that
    it last took, not in its steps."""
    if current.chunks == 1:
        return max(chunk_seconds - current.seconds, current.steps_left or 0.0, 0.0)
    return chunk_seconds * current.chunks * (1 - current.share)


def _whole(kinds: Iterable[str], found: Sequence[Run]) -> float:
    """Of stages that are still to come, each with as many chunks as its kind last had."""
    seconds = 0.0
    for kind in kinds:
        newest = max(
            (run for run in found if run.kind == kind), key=lambda run: run.iteration, default=None
        )
        if newest is not None:
            seconds += _chunk_seconds(kind, found) * newest.chunks
        elif kind not in QUICK:
            raise _Unknown(f"this job has not run '{kind}' so far")
    return seconds


def _chunk_seconds(kind: str, found: Sequence[Run]) -> float:
    of = sorted(
        (run for run in found if run.kind == kind and run.chunks), key=lambda run: -run.iteration
    )
    ended = next((run for run in of if run.state == State.SUCCEEDED), None)
    if ended is not None:
        return ended.seconds / ended.chunks
    for begun in of:
        if begun.expected is not None:
            return begun.expected / begun.chunks
    if kind in QUICK:
        return 0.0
    raise _Unknown(f"nothing of '{kind}' is done so far")


def _basis(found: Sequence[Run], current: Run) -> str:
    before = [run.kind for run in found if run.state == State.SUCCEEDED]
    if current.kind in before:
        return "every stage takes as long as it last did"
    if not before:
        return f"'{current.kind}' goes on as it has so far"
    return f"'{current.kind}' goes on as it has so far, the others take as long as they last did"
