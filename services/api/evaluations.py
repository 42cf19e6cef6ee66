"""Evaluations: a version on a benchmark, as a job of its own; results by version and template."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import aliases, jsonl
from selftaught.artifacts import resolve
from selftaught.benchmarks import pairs
from selftaught.benchmarks.statistics import compare
from selftaught.contracts import (
    ComparisonOut,
    EvaluationIn,
    EvaluationOut,
    EvaluationSettings,
    Page,
    PairedOut,
    State,
)
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Dataset, Job
from selftaught.http import Refused, problem_docs
from selftaught.ids import new_id
from selftaught.keeping import holds
from selftaught.registry import UnknownName, judge_template
from selftaught.work import pipeline
from services.api import problems, views
from services.api.deps import Cursor, Limit, StorableBody
from services.api.idempotency import Once, keep
from services.api.limits import Work

router = APIRouter(prefix="/v1/evaluations", tags=["evaluations"])


EvaluationId = Annotated[
    str, Path(description="An evaluation's id.", examples=["eval_019ac5a507149fc6e9fb0142"])
]


@router.post(
    "",
    status_code=201,
    responses=problem_docs(404, 409),
    dependencies=[StorableBody, Once, Work],
)
def create_evaluation(body: EvaluationIn, response: Response) -> EvaluationOut:
    """Judge a benchmark with a version; its result stands under the id that comes back."""
    with transaction() as session:
        version = aliases.resolve(session, body.model)
        dataset = session.get(Dataset, body.dataset)
        if dataset is None or dataset.artifact_id is None:
            raise problems.not_found("dataset", body.dataset, "dataset")
        if dataset.kind not in ("benchmark", "labelled"):
            detail = f"dataset {body.dataset!r} is of kind {dataset.kind!r}: it has no labels"
            raise Refused(422, "wrong_dataset_kind", detail, param="dataset")
        sha256 = session.get_one(Artifact, dataset.artifact_id).sha256
    try:
        template = judge_template(body.template or version.lineage["template"]["name"])
    except UnknownName as error:
        raise problems.unknown_name(error, "template") from error
    settings = EvaluationSettings(
        version=version.id,
        ref=version.ref,
        benchmark=dataset.benchmark or pairs.NAME,
        labelled=dataset.kind == "labelled",
        dataset_sha256=sha256,
        scoring=list(dict.fromkeys(body.scoring)),
        template=template.name,
        template_sha256=template.sha256,
        votes=body.votes,
        seed=body.seed,
        limit=body.limit,
        max_tokens=body.max_tokens or version.lineage["judge_max_tokens"],
    )
    with transaction() as session:
        if holds.dataset(session, body.dataset) is None:  # deleted meanwhile
            raise problems.not_found("dataset", body.dataset, "dataset")
        if holds.version(session, version.id) is None:
            raise problems.not_found("version", version.ref, "model")
        job = Job(
            id=new_id("eval"),
            kind="evaluation",
            state=State.PENDING,
            model=version.model,
            dataset_id=body.dataset,
            recipe=settings.model_dump(mode="json"),
        )
        session.add(job)
        pipeline.start_job(session, job)
        session.flush()
        session.refresh(job)
        (out,) = views.evaluations(session, [job])
        location = response.headers["Location"] = f"/v1/evaluations/{out.id}"
        keep(session, out, location)
    return out


@router.get("", responses=problem_docs())
def list_evaluations(
    after: Cursor = None,
    limit: Limit = 20,
    model: Annotated[
        str | None, Query(max_length=200, description="Only of this model, or name:number.")
    ] = None,
) -> Page[EvaluationOut]:
    """Evaluations, newest first."""
    query = select(Job).where(Job.kind == "evaluation").order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Job.id < after)
    if model is not None and ":" in model:
        query = query.where(Job.recipe["ref"].astext == model)
    elif model is not None:
        query = query.where(Job.model == model)
    with transaction() as session:
        rows = session.scalars(query).all()
        return Page(data=views.evaluations(session, rows[:limit]), has_more=len(rows) > limit)


@router.get("/{evaluation_id}", responses=problem_docs(404))
def get_evaluation(evaluation_id: EvaluationId) -> EvaluationOut:
    """One evaluation: its progress, and its scores once it has succeeded."""
    with transaction() as session:
        return views.evaluations(session, [_find(session, evaluation_id)])[0]


@router.get("/{evaluation_id}/compare/{other_id}", responses=problem_docs(404, 409))
def compare_evaluations(evaluation_id: EvaluationId, other_id: EvaluationId) -> ComparisonOut:
    """Is the second better than the first? Paired tests over the examples that both judged."""
    with transaction() as session:
        jobs = [_find(session, one) for one in (evaluation_id, other_id)]
        refs = [job.recipe["ref"] for job in jobs]
        if len({(job.recipe["dataset_sha256"], job.recipe["benchmark"]) for job in jobs}) > 1:
            raise Refused(409, "not_comparable", "the two evaluations are of different files")
        paths = [_points(session, job) for job in jobs]
    first, second = (_by_scoring(path) for path in paths)
    paired = []
    for scoring in sorted(first.keys() & second.keys(), reverse=True):
        try:
            found = compare(first[scoring], second[scoring])
        except ValueError as error:
            raise Refused(409, "not_comparable", str(error)) from error
        paired.append(PairedOut.model_validate({"scoring": scoring, **asdict(found)}))
    return ComparisonOut(first=evaluation_id, second=other_id, models=refs, paired=paired)


def _find(session: Session, evaluation_id: str) -> Job:
    job = session.get(Job, evaluation_id)
    if job is None or job.kind != "evaluation":
        raise problems.not_found("evaluation", evaluation_id)
    return job


def _points(session: Session, job: Job) -> str:
    """The file of its points by example; 409 while it has none."""
    query = (
        select(Artifact.path)
        .join(Chunk, Chunk.artifact_id == Artifact.id)
        .where(Chunk.job_id == job.id, Chunk.kind == "score")
    )
    path = session.scalar(query)
    if path is None:
        raise Refused(409, "not_finished", f"evaluation {job.id!r} has no scores ({job.state})")
    return path


def _by_scoring(path: str) -> dict[str, dict[str, float]]:
    points: dict[str, dict[str, float]] = {}
    for row in jsonl.read(resolve(path)):
        points.setdefault(row["scoring"], {})[row["example"]] = row["points"]
    return points
