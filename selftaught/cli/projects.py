"""``selftaught projects``: the operator's commands for tenants, straight on the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from selftaught.cli.database import first, with_database
from selftaught.cli.gateway import DEFAULT_HOME, Home
from selftaught.cli.output import AsJson, emit, rows, show

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from selftaught.database.tables import Project as Row

app = typer.Typer(help="Projects, which see nothing of each other.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The project.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="a-z 0-9 . _ -")],
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Make a project: its datasets, jobs, models and keys are its own."""
    from pydantic import ValidationError
    from sqlalchemy.dialects.postgresql import insert

    from selftaught.contracts import ProjectIn
    from selftaught.database.tables import Project
    from selftaught.keys import KeyRefused

    try:
        ProjectIn(id=name)
    except ValidationError as error:
        why = f"{name!r} cannot be a project: use up to 64 of a-z 0-9 . _ -"
        raise typer.BadParameter(why) from error
    adding = insert(Project).values(id=name).on_conflict_do_nothing().returning(Project.id)

    def make(session: Session) -> dict[str, Any]:
        if session.scalar(adding) is None:
            raise KeyRefused(f"there is a project {name!r} already")
        return _shown(session.get_one(Project, name))

    show(with_database(home, make, told=("projects create", name)), as_json, name)


@app.command("list")
def list_projects(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Every project, with its limits."""
    from sqlalchemy import select

    from selftaught.database.tables import Project

    query = select(Project).order_by(Project.id)
    found = with_database(home, lambda session: session.scalars(query).all())
    if as_json:
        emit([_shown(project) for project in found])
    else:
        rows(("project", "limits"), [(one.id, _limits(one.limits)) for one in found])


@app.command()
def limit(
    name: Name,
    requests_per_minute: Annotated[int | None, typer.Option(help="Of all its keys.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Read and written by models.")] = None,
    gpu_seconds_per_day: Annotated[int | None, typer.Option(help="Of its trainings.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(help="Of datasets and results.")] = None,
    no_limit: Annotated[list[str] | None, typer.Option(help="End this one, by name.")] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Set limits of a project; the others stay. Gateways know within two seconds."""
    from pydantic import ValidationError

    from selftaught import usage
    from selftaught.contracts import Limits
    from selftaught.keys import KeyRefused

    given: dict[str, int | None] = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_day": tokens_per_day,
        "gpu_seconds_per_day": gpu_seconds_per_day,
        "stored_bytes": stored_bytes,
    }
    changed: dict[str, int | None] = {
        key: value for key, value in given.items() if value is not None
    }
    changed |= {one.replace("-", "_"): None for one in no_limit or ()}
    try:
        Limits.model_validate(changed)
    except ValidationError as error:
        raise typer.BadParameter(first(error)) from error

    def change(session: Session) -> tuple[dict[str, Any], str]:
        row = usage.change_limits(session, name, changed)
        if row is None:
            raise KeyRefused(f"there is no project {name!r}")
        return _shown(row), _limits(row.limits)

    data, text = with_database(home, change, told=("projects limit", name))
    show(data, as_json, text)


def _limits(limits: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(limits.items())) or "no limits"


def _shown(project: Row) -> dict[str, Any]:
    """As GET /v1/projects shows it."""
    from selftaught.contracts import Limits, ProjectOut

    found = ProjectOut(
        id=project.id,
        created_at=project.created_at,
        limits=Limits.model_validate(project.limits),
    )
    return found.model_dump(mode="json")
