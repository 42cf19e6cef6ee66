"""Jobs: post one, watch it; cancel, pause, resume, retry it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import ValidationError
from sqlalchemy import or_, select, tuple_
from sqlalchemy.orm import Session

from selftaught import reviews
from selftaught.contracts import JobIn, JobKind, JobOut, Page, Recipe, State
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Job
from selftaught.http import Refused, problem_docs
from selftaught.ids import new_id
from selftaught.keeping import erase, holds
from selftaught.registry import UnknownName, resolve_recipe
from selftaught.work import control, pipeline
from services.api import problems, views
from services.api.deps import Cursor, JobId, Limit, StorableBody
from services.api.idempotency import Once, keep
from services.api.limits import Work

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_PARAMS = {
    "base model": "recipe.base_model",
    "inference endpoint": "recipe.inference",
    "judge template": "recipe.judge.template",
    "modify template": "recipe.pair.template",
    "label template": "recipe.select.label.template",
    "category": "recipe.select.quotas.categories",
}


@router.post(
    "",
    status_code=201,
    responses=problem_docs(404, 409),
    dependencies=[StorableBody, Once, Work],
)
def create_job(body: JobIn, response: Response) -> JobOut:
    """Start a job: everything is checked here, nothing is queued if anything is wrong."""
    recipe = _recipe(body)
    with transaction() as session:
        _need_rows(session, body.dataset, recipe)
        _need_labelled(session, body.labelled_dataset, recipe)
        _need_gate_sets(session, body.labelled_dataset, recipe)
        job = Job(
            id=new_id("job"),
            state=State.PENDING,
            model=body.model or recipe.name,
            dataset_id=body.dataset,
            labelled_dataset_id=body.labelled_dataset,
            recipe=recipe.model_dump(mode="json", by_alias=True),
        )
        session.add(job)
        pipeline.start_job(session, job)
        session.flush()
        session.refresh(job)
        (out,) = views.jobs(session, [job])
        location = response.headers["Location"] = f"/v1/jobs/{out.id}"
        keep(session, out, location)
    return out


@router.get("", responses=problem_docs())
def list_jobs(
    after: Cursor = None,
    limit: Limit = 20,
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind.")] = None,
    dataset: Annotated[
        str | None, Query(max_length=128, description="Only jobs that use this dataset.")
    ] = None,
    model: Annotated[
        str | None, Query(max_length=200, description="Only jobs of this model.")
    ] = None,
) -> Page[JobOut]:
    """Jobs, newest first."""
    # Ids of one kind sort by time, those of different kinds do not. Column by column, and behind
    # values instead of a subquery, so that Postgres reads a page from an index and not all jobs.
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(Job.state == state)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if dataset is not None:
        query = query.where(or_(Job.dataset_id == dataset, Job.labelled_dataset_id == dataset))
    if model is not None:
        query = query.where(Job.model == model)
    with transaction() as session:
        if after is not None:
            last = session.execute(select(Job.created_at, Job.id).where(Job.id == after)).first()
            if last is None:
                return Page(data=[], has_more=False)
            query = query.where(tuple_(Job.created_at, Job.id) < tuple(last))
        rows = session.scalars(query).all()
        return Page(data=views.jobs(session, rows[:limit]), has_more=len(rows) > limit)


@router.get("/{job_id}", response_model=JobOut, responses=problem_docs(404))
def get_job(job_id: JobId) -> Response:
    """One job: its state, its settings, and why it failed if it did."""
    with transaction() as session:
        (out,) = views.jobs(session, [find(session, job_id)])
    # Read most of all, and written here: FastAPI would check the model in a second thread.
    return Response(out.model_dump_json(), media_type="application/json")


@router.post("/{job_id}/cancel", status_code=202, responses=problem_docs(404, 409))
def cancel_job(job_id: JobId) -> JobOut:
    """Ask a job to stop; versions it has published stay. Asking again changes nothing."""
    return _controlled(job_id, control.cancel_job)


@router.post("/{job_id}/pause", status_code=202, responses=problem_docs(404, 409))
def pause_job(job_id: JobId) -> JobOut:
    """Ask a job to stand still: workers let go of it within seconds, and what is finished stays.

    It is `pausing`, and `paused` once nobody works on it; a training keeps its last saved state.
    Asking again changes nothing.
    """
    return _controlled(job_id, control.pause_job)


@router.post(
    "/{job_id}/resume", status_code=202, responses=problem_docs(404, 409), dependencies=[Work]
)
def resume_job(job_id: JobId) -> JobOut:
    """Let a paused job go on where it stands. A job that is going on is left alone."""
    return _controlled(job_id, control.resume_job)


@router.post(
    "/{job_id}/retry", status_code=202, responses=problem_docs(404, 409), dependencies=[Work]
)
def retry_job(job_id: JobId) -> JobOut:
    """Let a failed job go on from the stage that failed; what that stage has finished is kept.

    The rest of it is tried anew, with all its attempts. A job that is going on is left alone. 409
    `superseded`: the same review queue has been asked for again since.
    """
    return _controlled(job_id, _retry)


def _controlled(job_id: str, ask: Callable[[Session, str], None]) -> JobOut:
    """The job, after something was asked of it; 409 if its state does not allow that."""
    with transaction() as session:
        job = find(session, job_id)
        with refusals():
            ask(session, job_id)
        session.flush()
        session.refresh(job)
        return views.jobs(session, [job])[0]


@router.delete("/{job_id}", status_code=204, responses=problem_docs(404, 409))
def delete_job(job_id: JobId) -> None:
    """Delete a job of any kind that has ended, with its data, events and reviews.

    Versions that it made stay, with what gates found of them. 409 `job_not_ended` before its end,
    `job_in_use` while another job reads its data.
    """
    try:
        with transaction() as session:
            gone = erase.job(session, job_id)
    except KeyError as error:
        raise problems.not_found("job", job_id) from error
    except erase.NotEnded as error:
        raise Refused(409, "job_not_ended", str(error)) from error
    except erase.InUse as error:
        raise Refused(409, "job_in_use", str(error)) from error
    erase.remove(gone)


def _retry(session: Session, job_id: str) -> None:
    job = find(session, job_id)
    if job.kind == "review" and job.state == State.FAILED:
        reviews.lock(session, job.model)  # as who asks for a queue does
        again = select(Job.id).where(
            Job.kind == "review",
            Job.model == job.model,
            Job.recipe == job.recipe,
            Job.state.not_in((State.FAILED, State.CANCELLED, State.CANCELLING)),
        )
        if (other := session.scalars(again).first()) is not None:
            raise control.JobRefuses("superseded", f"job {other!r} fills the same queue")
    control.retry_job(session, job_id)


@contextmanager
def refusals() -> Iterator[None]:
    """A job's own refusals as problems."""
    try:
        yield
    except control.JobRefuses as error:
        raise Refused(409, error.code, error.detail) from error


def find(session: Session, job_id: str) -> Job:
    """The job's row; 404 if there is none."""
    job = session.get(Job, job_id)
    if job is None:
        raise problems.not_found("job", job_id)
    return job


def _recipe(body: JobIn) -> Recipe:
    try:
        return resolve_recipe(body.recipe, body.overrides)
    except UnknownName as error:
        raise problems.unknown_name(error, _PARAMS.get(error.what, "recipe")) from error
    except ValidationError as error:
        raise problems.invalid_recipe(error, body.overrides) from error


def _need_rows(session: Session, dataset_id: str, recipe: Recipe) -> None:
    rows = _dataset(session, dataset_id, "instructions", "dataset").rows
    heldout = recipe.validate_.instructions
    if rows <= heldout:
        detail = (
            f"the dataset has {rows} rows; the recipe sets {heldout} aside "
            "(validate.instructions) and needs at least one more: upload more"
        )
        if rows > 2:
            fewer = max(2, min(32, rows // 4))
            detail += f", or set fewer aside (--set validate.instructions={fewer} of the CLI)"
        raise Refused(422, "dataset_too_small", detail, param="dataset")


def _need_labelled(session: Session, dataset_id: str | None, recipe: Recipe) -> None:
    chooses = recipe.validate_.choose_on == "labelled"
    if dataset_id is None:
        if chooses:
            detail = "validate.choose_on is 'labelled', and the job names no labelled_dataset"
            raise Refused(422, "labelled_dataset_missing", detail, param="labelled_dataset")
        return
    rows = _dataset(session, dataset_id, "labelled", "labelled_dataset").rows
    if chooses and rows < 2:
        detail = "the labelled dataset has 1 row: one chooses checkpoints, another is scored"
        raise Refused(422, "dataset_too_small", detail, param="labelled_dataset")


def _need_gate_sets(session: Session, labelled: str | None, recipe: Recipe) -> None:
    for dataset_id in recipe.gate.labelled:
        if dataset_id == labelled:
            detail = "gate.labelled names the job's labelled_dataset, which is scored anyway"
            raise Refused(422, "dataset_named_twice", detail, param="recipe.gate.labelled")
        _dataset(session, dataset_id, "labelled", "recipe.gate.labelled")


def _dataset(session: Session, dataset_id: str, kind: str, param: str) -> Artifact:
    """The file of a dataset of this kind; 404 if there is none, 422 if it is of another kind."""
    found = holds.dataset(session, dataset_id)
    if found is None:
        raise problems.not_found("dataset", dataset_id, param)
    if found.kind != kind:
        detail = f"dataset {dataset_id!r} is of kind {found.kind!r}; {param} must be {kind!r}"
        raise Refused(422, "wrong_dataset_kind", detail, param=param)
    return session.get_one(Artifact, found.artifact_id)
