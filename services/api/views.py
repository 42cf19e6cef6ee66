"""From rows to contracts: what a client sees of a job, an iteration, a version.

Stages write their counts and metrics when they like; a key that is not there counts as nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, cast

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from selftaught.aliases import history
from selftaught.contracts import (
    AliasMove,
    AliasOut,
    BatchOut,
    BatchSettings,
    BatchState,
    BatchUsage,
    DatasetKind,
    DatasetOut,
    EvaluationOut,
    EvaluationSettings,
    EventOut,
    Finding,
    IterationOut,
    JobKind,
    JobOut,
    JobProgress,
    JobResult,
    ModelOut,
    Problem,
    PromotionOut,
    RequestCounts,
    ScoreOut,
    StageOut,
    State,
    VersionOut,
)
from selftaught.database.tables import (
    Alias,
    Artifact,
    Dataset,
    Evaluation,
    Event,
    Iteration,
    Job,
    ModelVersion,
    Promotion,
    Stage,
)
from selftaught.gate import HELDOUT, LABELLED
from selftaught.work import progress
from selftaught.work.pipeline import add_counts, chunk_counts

_BATCH_STATES: dict[State, BatchState] = {
    State.PENDING: "in_progress",
    State.RUNNING: "in_progress",
    State.PAUSING: "pausing",
    State.PAUSED: "paused",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLING: "cancelling",
    State.CANCELLED: "cancelled",
}
_VERDICTS: tuple[Literal["A", "B", "tie", "unparsable"], ...] = ("A", "B", "tie", "unparsable")


def datasets(session: Session, after: str | None, limit: int) -> list[DatasetOut]:
    """Datasets older than `after`, newest first."""
    query = select(Dataset, Artifact).join(Artifact, Artifact.id == Dataset.artifact_id)
    if after is not None:
        query = query.where(Dataset.id < after)
    found = session.execute(query.order_by(Dataset.id.desc()).limit(limit))
    return [dataset(row, artifact) for row, artifact in found]


def dataset(row: Dataset, artifact: Artifact) -> DatasetOut:
    return DatasetOut(
        id=row.id,
        name=row.name,
        kind=cast(DatasetKind, row.kind),
        benchmark=row.benchmark,
        rows=artifact.rows,
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        created_at=row.created_at,
    )


def jobs(session: Session, rows: Sequence[Job]) -> list[JobOut]:
    """Jobs with their progress and results: at most three queries for all of them."""
    ids = [row.id for row in rows]
    numbers: dict[str, tuple[int | None, int]] = {
        job_id: (newest, n) for job_id, newest, n in session.execute(_numbers(), {"jobs": ids})
    }
    found = progress.runs(session, ids)
    gated = [row.id for row in rows if row.kind == "loop" and _gated(found[row.id])]
    results = _results(session, gated) if gated else {}
    return [
        _job(
            row,
            numbers.get(row.id, (None, 0)),
            progress.progress(row, found[row.id]),
            results.get(row.id),
        )
        for row in rows
    ]


def _gated(found: Sequence[progress.Run]) -> bool:
    """Whether a gate has succeeded; before that there is no result to ask for."""
    return any(run.kind == "gate" and run.state == State.SUCCEEDED for run in found)


@cache
def _numbers() -> Select[str, int, int]:
    """Jobs' newest iterations, and how many have succeeded; made once, as it takes a while."""
    done = func.count().filter(Iteration.state == State.SUCCEEDED, Iteration.number > 0)
    return (
        select(Iteration.job_id, func.max(Iteration.number), done)
        .where(Iteration.job_id.in_(bindparam("jobs", expanding=True)))
        .group_by(Iteration.job_id)
    )


@cache
def _gates() -> Select[Any]:
    """What the gates of jobs found; made once, too."""
    return (
        select(
            Stage.job_id,
            Iteration.number,
            ModelVersion,
            Stage.metrics["promoted"].as_boolean(),
            Stage.metrics[(HELDOUT, "strict_accuracy")].as_float(),
        )
        .join(Iteration, Iteration.id == Stage.iteration_id)
        .outerjoin(ModelVersion, ModelVersion.id == Iteration.version_id)
        .where(
            Stage.job_id.in_(bindparam("jobs", expanding=True)),
            Stage.kind == "gate",
            Stage.state == State.SUCCEEDED,
        )
        .order_by(Iteration.number)
    )


def _results(session: Session, job_ids: Sequence[str]) -> dict[str, JobResult]:
    """Of each job whose seed is scored, by what its gates found: one query."""
    found: dict[str, JobResult] = {}
    rows = session.execute(_gates(), {"jobs": job_ids})
    for job_id, number, version, promoted, accuracy in rows:
        if number == 0 or promoted:
            found[job_id] = JobResult(
                version=version.ref if version is not None else None,
                iteration=number,
                strict_accuracy=accuracy,
                seed_strict_accuracy=found[job_id].seed_strict_accuracy if number else accuracy,
            )
    return found


def _job(
    row: Job, numbers: tuple[int | None, int], far: JobProgress, result: JobResult | None
) -> JobOut:
    newest, done = numbers
    return JobOut(
        id=row.id,
        kind=cast(JobKind, row.kind),
        state=State(row.state),
        model=row.model,
        dataset=row.dataset_id,
        labelled_dataset=row.labelled_dataset_id,
        recipe=row.recipe,
        current_iteration=newest,
        iterations_done=done,
        progress=far,
        result=result,
        error=Problem.model_validate(row.error) if row.error else None,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        cancel_requested_at=row.cancel_requested_at,
        data_removed_at=row.data_removed_at,
        paused_at=row.paused_at,
        retried_at=row.retried_at,
    )


def evaluations(session: Session, rows: Sequence[Job]) -> list[EvaluationOut]:
    """Evaluations with their counts so far and their scores."""
    ids = [row.id for row in rows]
    stages = session.scalars(select(Stage).where(Stage.job_id.in_(ids))).all()
    counts = _counts(session, stages)
    by_job: dict[str, list[dict[str, int]]] = {row_id: [] for row_id in ids}
    for stage in stages:
        by_job[stage.job_id].append(counts[stage.id])
    scores: dict[str, list[ScoreOut]] = {row_id: [] for row_id in ids}
    for found in session.scalars(
        select(Evaluation).where(Evaluation.job_id.in_(ids)).order_by(Evaluation.set.desc())
    ):
        scores[found.job_id].append(ScoreOut.model_validate(found.metrics))
    return [_evaluation(row, add_counts(by_job[row.id]), scores[row.id]) for row in rows]


def _evaluation(row: Job, counts: dict[str, int], scores: list[ScoreOut]) -> EvaluationOut:
    settings = EvaluationSettings.model_validate(row.recipe)
    return EvaluationOut(
        id=row.id,
        state=State(row.state),
        model=settings.ref,
        dataset=str(row.dataset_id),
        benchmark=settings.benchmark,
        settings=settings,
        examples_done=counts.get("examples", 0),
        counts=counts,
        scores=scores,
        error=Problem.model_validate(row.error) if row.error else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def batches(session: Session, rows: Sequence[Job]) -> list[BatchOut]:
    """Batches with their counts so far."""
    stages = session.scalars(select(Stage).where(Stage.job_id.in_([row.id for row in rows]))).all()
    counts = _counts(session, stages)
    by_job = {stage.job_id: counts[stage.id] for stage in stages}  # a batch has one stage
    return [_batch(row, by_job[row.id]) for row in rows]


def _batch(row: Job, counts: dict[str, int]) -> BatchOut:
    settings = BatchSettings.model_validate(row.recipe)
    ended = {State(row.state): row.finished_at}
    return BatchOut(
        id=row.id,
        state=_BATCH_STATES[State(row.state)],
        model=settings.ref,
        template=settings.template,
        template_sha256=settings.template_sha256,
        votes=settings.votes,
        both_orders=settings.both_orders,
        allow_tie=settings.allow_tie,
        explain=settings.explain,
        request_counts=RequestCounts(
            total=settings.lines,
            completed=counts.get("completed", 0),
            failed=counts.get("failed", 0),
        ),
        verdicts={name: counts.get(f"verdict_{name}", 0) for name in _VERDICTS},
        usage=BatchUsage(
            prompt_tokens=counts.get("prompt_tokens", 0),
            completion_tokens=counts.get("tokens", 0),
        ),
        error=Problem.model_validate(row.error) if row.error else None,
        created_at=row.created_at,
        in_progress_at=row.started_at,
        completed_at=ended.get(State.SUCCEEDED),
        failed_at=ended.get(State.FAILED),
        cancelling_at=row.cancel_requested_at,
        cancelled_at=ended.get(State.CANCELLED),
    )


def event(row: Event) -> EventOut:
    return EventOut(seq=row.seq, type=row.type, data=row.data, created_at=row.created_at)


def iterations(session: Session, rows: Sequence[Iteration]) -> list[IterationOut]:
    """Iterations with their stages and versions."""
    ids = [row.id for row in rows]
    stages: dict[str, list[Stage]] = {row_id: [] for row_id in ids}
    query = select(Stage).where(Stage.iteration_id.in_(ids)).order_by(Stage.position)
    for stage in session.scalars(query):
        stages[stage.iteration_id].append(stage)
    counts = _counts(session, [stage for found in stages.values() for stage in found])
    wanted = [row.version_id for row in rows if row.version_id is not None]
    versions = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(wanted)))
    refs = {version.id: version.ref for version in versions}
    now = session.scalars(select(func.clock_timestamp())).one()
    return [
        _iteration(row, stages[row.id], counts, refs.get(row.version_id or ""), now) for row in rows
    ]


def _counts(session: Session, stages: Sequence[Stage]) -> dict[str, dict[str, int]]:
    """Each stage's counts; of an unfinished one, the sum of its chunks so far."""
    so_far = chunk_counts(session, [stage.id for stage in stages if not stage.counts])
    return {stage.id: stage.counts or so_far.get(stage.id, {}) for stage in stages}


def _iteration(
    row: Iteration,
    stages: list[Stage],
    by_stage: dict[str, dict[str, int]],
    version: str | None,
    now: dt.datetime,
) -> IterationOut:
    counts = add_counts([by_stage[stage.id] for stage in stages])
    metrics: dict[str, Any] = {}
    for stage in stages:
        if stage.kind == "gate":
            metrics |= stage.metrics
        elif stage.metrics and stage.kind != "validate":  # its chunks' raw sums: gate's matter
            metrics[stage.kind] = stage.metrics
    sampled = counts.get("judgments_sampled", 0)
    return IterationOut(
        id=row.id,
        job=row.job_id,
        number=row.number,
        state=State(row.state),
        stages=[_stage(stage, by_stage[stage.id], now) for stage in stages],
        counts=counts,
        kept_share=counts.get("judgments_kept", 0) / sampled if sampled else None,
        metrics=metrics,
        tokens=counts.get("tokens", 0) + counts.get("train_tokens", 0),
        seconds=_seconds(row.started_at, row.finished_at or now),
        model_version=version,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _stage(row: Stage, counts: dict[str, int], now: dt.datetime) -> StageOut:
    return StageOut(
        kind=row.kind,
        state=State(row.state),
        chunks=row.chunks,
        chunks_done=row.chunks_done,
        counts=counts,
        # The log-odds of every pair are the gate's matter, too.
        metrics={name: value for name, value in row.metrics.items() if name != "log_odds"},
        seconds=_seconds(row.started_at, row.finished_at or now),
    )


def _seconds(start: dt.datetime | None, end: dt.datetime) -> float | None:
    """Both by Postgres's clock."""
    return None if start is None else (end - start).total_seconds()


def models(session: Session, after: str | None, limit: int) -> list[ModelOut]:
    """Models by name."""
    query = select(ModelVersion.model, func.count()).group_by(ModelVersion.model)
    if after is not None:
        query = query.where(ModelVersion.model > after)
    query = query.order_by(ModelVersion.model).limit(limit)
    found = dict(session.execute(query).all())
    pointers: dict[str, dict[str, str]] = {name: {} for name in found}
    where = (
        select(Alias.model, Alias.alias, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Alias.version_id)
        .where(Alias.model.in_(list(found)))
        .order_by(Alias.alias)
    )
    for model, name, version in session.execute(where):
        pointers[model][name] = version.ref
    return [
        ModelOut(name=name, versions=count, aliases=pointers[name]) for name, count in found.items()
    ]


def versions(session: Session, rows: Sequence[ModelVersion]) -> list[VersionOut]:
    """Versions with their aliases, parents, and what they scored: in the job that made them, which
    is the figure of everything else about it; on sets that only other jobs scored, the newest."""
    ids = [row.id for row in rows]
    makers = {row.id: row.job_id for row in rows}
    names: dict[str, list[str]] = {row_id: [] for row_id in ids}
    metrics: dict[str, dict[str, Any]] = {row_id: {} for row_id in ids}
    for alias in session.scalars(
        select(Alias).where(Alias.version_id.in_(ids)).order_by(Alias.alias)
    ):
        names[alias.version_id].append(alias.alias)
    scored = select(Evaluation).where(
        Evaluation.version_id.in_(ids),
        (Evaluation.set == HELDOUT) | Evaluation.set.startswith(LABELLED),
    )
    for evaluation in sorted(
        session.scalars(scored),
        key=lambda one: (one.job_id == makers[one.version_id], one.created_at, one.id),
    ):
        metrics[evaluation.version_id][evaluation.set] = evaluation.metrics
    child, parent = aliased(ModelVersion), aliased(ModelVersion)
    pairs = session.execute(
        select(child.id, parent).join(parent, parent.id == child.parent_id).where(child.id.in_(ids))
    )
    parents = {child_id: row.ref for child_id, row in pairs}
    return [
        VersionOut(
            ref=row.ref,
            id=row.id,
            model=row.model,
            number=row.number,
            job=row.job_id,
            iteration=row.iteration_number,
            parent=parents.get(row.id),
            sha256=row.sha256,
            lineage=row.lineage,
            metrics=metrics[row.id],
            aliases=names[row.id],
            created_at=row.created_at,
        )
        for row in rows
    ]


def alias_out(session: Session, row: Alias) -> AliasOut:
    """An alias with every move it made, newest first."""
    moves = history(session, row.model, row.alias)
    ids = {move.version_id for move in moves} | {row.version_id}
    found = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(ids)))
    refs = {version.id: version.ref for version in found}
    return AliasOut(
        model=row.model,
        alias=row.alias,
        version=refs[row.version_id],
        revision=row.revision,
        history=[
            AliasMove(
                revision=move.revision,
                version=refs[move.version_id],
                reason=move.reason,
                by=move.key_name,
                created_at=move.created_at,
            )
            for move in reversed(moves)
        ],
    )


def promotions(session: Session, rows: Sequence[Promotion]) -> list[PromotionOut]:
    """Decisions of the gate, with exact versions."""
    ids = {row.version_id for row in rows} | {row.incumbent_id for row in rows if row.incumbent_id}
    found = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(ids)))
    refs = {version.id: version.ref for version in found}
    return [
        PromotionOut(
            id=row.id,
            version=refs[row.version_id],
            alias=row.alias,
            incumbent=refs.get(row.incumbent_id or ""),
            promoted=row.promoted,
            forced=row.forced,
            findings=[Finding.model_validate(finding) for finding in row.findings],
            reason=row.reason,
            job=row.job_id,
            key=row.key_id,
            by=row.key_name,
            created_at=row.created_at,
        )
        for row in rows
    ]
