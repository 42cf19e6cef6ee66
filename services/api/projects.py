"""Projects: tenants that see nothing of each other. For the operator only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from selftaught import tenancy, usage
from selftaught.contracts import KeyIn, KeyMade, Limits, Page, ProjectChange, ProjectIn, ProjectOut
from selftaught.database import transaction
from selftaught.database.tables import Project
from selftaught.http import Refused, problem_docs
from services.api import keys, problems
from services.api.deps import Cursor, Limit, StorableBody
from services.api.idempotency import Once, keep

router = APIRouter(prefix="/v1/projects", tags=["access"])

ProjectId = Annotated[str, Path(description="A project's id.", examples=["support"])]


@router.post("", status_code=201, responses=problem_docs(409), dependencies=[StorableBody, Once])
def create_project(body: ProjectIn, response: Response) -> ProjectOut:
    """Make a project: its datasets, jobs, models and keys are its own."""
    with transaction() as session:
        made = insert(Project).values(id=body.id).on_conflict_do_nothing().returning(Project.id)
        if session.scalar(made) is None:
            raise Refused(409, "project_exists", f"there is a project {body.id!r}", param="id")
        out = _out(session.get_one(Project, body.id))
        location = response.headers["Location"] = f"/v1/projects/{out.id}"
        keep(session, out, location)
    return out


@router.get("", responses=problem_docs())
def list_projects(after: Cursor = None, limit: Limit = 20) -> Page[ProjectOut]:
    """Projects by id; `after` is an id."""
    query = select(Project).order_by(Project.id).limit(limit + 1)
    if after is not None:
        query = query.where(Project.id > after)
    with transaction() as session:
        rows = session.scalars(query).all()
        return Page(data=[_out(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/{project_id}", responses=problem_docs(404))
def get_project(project_id: ProjectId) -> ProjectOut:
    """One project."""
    return _out(_find(project_id))


@router.patch("/{project_id}", responses=problem_docs(404), dependencies=[StorableBody])
def change_project(project_id: ProjectId, body: ProjectChange, request: Request) -> ProjectOut:
    """Change limits of a project; those that are not named stay, null ends one.

    Gateways that know others go by them for two seconds at most. What is already used counts
    against a new quota; work that was let in goes on.
    """
    changed = body.limits.model_dump(exclude_unset=True)
    with transaction() as session:
        row = usage.change_limits(session, project_id, changed)
        if row is None:
            raise problems.not_found("project", project_id)
        out = _out(row)
    request.app.state.standings.forget(project_id)
    return out


@router.post(
    "/{project_id}/keys",
    status_code=201,
    responses=problem_docs(404, 409),
    dependencies=[StorableBody, Once],
)
def create_project_key(project_id: ProjectId, body: KeyIn, response: Response) -> KeyMade:
    """Make a key of any project: the first one, with scope `admin`, makes the others."""
    _find(project_id)
    with tenancy.inside(project_id):
        return keys.make(body, response)


def _find(project_id: str) -> Project:
    with transaction() as session:
        row = session.get(Project, project_id)
    if row is None:
        raise problems.not_found("project", project_id)
    return row


def _out(row: Project) -> ProjectOut:
    limits = Limits.model_validate(row.limits)
    return ProjectOut(id=row.id, created_at=row.created_at, limits=limits)
