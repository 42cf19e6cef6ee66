"""Iterations: how far each one is, what it kept and how good its version became."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import select

from selftaught.contracts import IterationOut, Page
from selftaught.database import transaction
from selftaught.database.tables import Iteration
from selftaught.http import problem_docs
from services.api import jobs, problems, views
from services.api.deps import JobId

router = APIRouter(prefix="/v1", tags=["iterations"])


IterationId = Annotated[
    str, Path(description="An iteration's id.", examples=["it_019ac5a2d4e1903b6c8d0e1f"])
]


@router.get("/jobs/{job_id}/iterations", responses=problem_docs(404))
def list_iterations(job_id: JobId) -> Page[IterationOut]:
    """All iterations of a job, in order (a recipe has at most 50)."""
    with transaction() as session:
        jobs.find(session, job_id)
        rows = session.scalars(
            select(Iteration).where(Iteration.job_id == job_id).order_by(Iteration.number)
        ).all()
        return Page(data=views.iterations(session, rows), has_more=False)


@router.get("/iterations/{iteration_id}", responses=problem_docs(404))
def get_iteration(iteration_id: IterationId) -> IterationOut:
    """One iteration: its stages, what it kept, and how good its version became."""
    with transaction() as session:
        row = session.get(Iteration, iteration_id)
        if row is None:
            raise problems.not_found("iteration", iteration_id)
        return views.iterations(session, [row])[0]
