"""``selftaught keys`` and ``selftaught projects``: the operator's commands for access, straight on
the database."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import ValidationError
    from sqlalchemy.orm import Session

app = typer.Typer(
    help="API keys, on the database of DATABASE_URL or of the stack that runs in this home.",
    no_args_is_help=True,
)
projects = typer.Typer(help="Projects, which see nothing of each other.", no_args_is_help=True)

Project = Annotated[str, typer.Option(help="Whose key.")]
Home = Annotated[
    Path,
    typer.Option("--home", envvar="SELFTAUGHT_HOME", help="Folder with the stack's state."),
]
DEFAULT_HOME = Path(".selftaught")
DEFAULT_PROJECT = "default"
Result = TypeVar("Result")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who holds it; stands in records.")],
    scope: Annotated[list[str] | None, typer.Option(help="read, write, judge, ..")] = None,
    days: Annotated[float | None, typer.Option(help="Good for so long; else for ever.")] = None,
    project: Project = DEFAULT_PROJECT,
    home: Home = DEFAULT_HOME,
) -> None:
    """Make a key and print its secret, once: it is not kept anywhere."""
    from pydantic import ValidationError

    from selftaught import keys
    from selftaught.contracts import KeyIn

    try:
        body = KeyIn.model_validate({"name": name, "scopes": scope or [], "expires_in_days": days})
    except ValidationError as error:
        raise typer.BadParameter(_first(error)) from error
    lifetime = None if days is None else dt.timedelta(days=days)
    _, secret = with_database(
        home,
        lambda session: keys.create(session, body.name, body.scopes, lifetime),
        project,
        told=("keys create", body.name),
    )
    typer.echo(secret)


@app.command("list")
def list_keys(project: Project = DEFAULT_PROJECT, home: Home = DEFAULT_HOME) -> None:
    """A project's keys: first characters, scopes, and when each was used or revoked."""
    from selftaught import keys

    for key in with_database(home, keys.listed, project):
        scopes = ",".join(key.scopes) or "-"
        used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        until = f"good until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "good"
        good = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else until
        typer.echo(f"{key.name}\t{key.prefix}...\t{scopes}\t{used}\t{good}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name or id.")],
    project: Project = DEFAULT_PROJECT,
    home: Home = DEFAULT_HOME,
) -> None:
    """Make a key useless, for good; every gateway knows within two seconds."""
    from selftaught import keys

    told = ("keys revoke", name)
    with_database(home, lambda session: keys.revoke(session, name), project, told)
    typer.echo(f"revoked {name}")


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="a-z 0-9 . _ -")], home: Home = DEFAULT_HOME
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
    made = insert(Project).values(id=name).on_conflict_do_nothing().returning(Project.id)

    def make(session: Session) -> None:
        if session.scalar(made) is None:
            raise KeyRefused(f"there is a project {name!r} already")

    with_database(home, make, told=("projects create", name))
    typer.echo(name)


@projects.command("list")
def list_projects(home: Home = DEFAULT_HOME) -> None:
    """Every project, with its limits."""
    from sqlalchemy import select

    from selftaught.database.tables import Project

    query = select(Project).order_by(Project.id)
    for project in with_database(home, lambda session: session.scalars(query).all()):
        typer.echo(f"{project.id}\t{_limits(project.limits)}")


@projects.command("limit")
def limit_project(
    name: Annotated[str, typer.Argument(help="The project.")],
    requests_per_minute: Annotated[int | None, typer.Option(help="Of all its keys.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Read and written by models.")] = None,
    gpu_seconds_per_day: Annotated[int | None, typer.Option(help="Of its trainings.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(help="Of datasets and results.")] = None,
    no_limit: Annotated[list[str] | None, typer.Option(help="End this one, by name.")] = None,
    home: Home = DEFAULT_HOME,
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
        raise typer.BadParameter(_first(error)) from error

    def limit(session: Session) -> str:
        row = usage.change_limits(session, name, changed)
        if row is None:
            raise KeyRefused(f"there is no project {name!r}")
        return _limits(row.limits)

    typer.echo(with_database(home, limit, told=("projects limit", name)))


def _limits(limits: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(limits.items())) or "no limits"


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"


def _need_project(session: Session, project: str) -> None:
    from selftaught.database.tables import Project
    from selftaught.keys import KeyRefused

    if session.get(Project, project) is None:
        raise KeyRefused(f"there is no project {project!r}")


def with_database(
    home: Path,
    work: Callable[[Session], Result],
    project: str | None = None,
    told: tuple[str, str] | None = None,
) -> Result:
    """What `work` gives in a transaction, of a project or of all; `told`, what it is and to what
    it is done, stands in the project's audit log.

    A refusal, or no database, ends the command with 1.
    """
    from sqlalchemy.exc import OperationalError

    from selftaught import audit, tenancy
    from selftaught.database import transaction
    from selftaught.keys import KeyRefused
    from selftaught.stack import state

    if "DATABASE_URL" not in os.environ:
        record = state.read(home.resolve())
        if record is None or not record["running"]:
            typer.echo(f"no stack runs in {home}, and DATABASE_URL is not set", err=True)
            raise typer.Exit(1)
        os.environ["DATABASE_URL"] = record["urls"]["database"]
    try:
        with ExitStack() as around:
            if told is not None:
                with transaction() as session:
                    _need_project(session, project or DEFAULT_PROJECT)
                around.enter_context(audit.command(project or DEFAULT_PROJECT, *told))
            with tenancy.inside(project), transaction() as session:
                return work(session)
    except KeyRefused as error:
        typer.echo(str(error), err=True)
    except OperationalError as error:
        typer.echo(f"no database: {error.orig}", err=True)
    raise typer.Exit(1)
