"""``selftaught keys`` and ``selftaught projects``: the operator's commands for access, straight on
the database."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
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
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"])
        raise typer.BadParameter(f"{where}: {found['msg']}") from error
    lifetime = None if days is None else dt.timedelta(days=days)
    with_database(home, lambda session: _need_project(session, project))
    _, secret = with_database(
        home, lambda session: keys.create(session, body.name, body.scopes, lifetime), project
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

    with_database(home, lambda session: keys.revoke(session, name), project)
    typer.echo(f"revoked {name}")


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="a-z 0-9 . _ -")], home: Home = DEFAULT_HOME
) -> None:
    """Make a project: its datasets, jobs, models and keys are its own."""
    from sqlalchemy.dialects.postgresql import insert

    from selftaught import tenancy
    from selftaught.database.tables import Project

    if not tenancy.NAME.fullmatch(name):
        raise typer.BadParameter(f"{name!r} cannot be a project: use up to 64 of a-z 0-9 . _ -")
    made = insert(Project).values(id=name).on_conflict_do_nothing().returning(Project.id)
    if with_database(home, lambda session: session.scalar(made)) is None:
        typer.echo(f"there is a project {name!r} already", err=True)
        raise typer.Exit(1)
    typer.echo(name)


@projects.command("list")
def list_projects(home: Home = DEFAULT_HOME) -> None:
    """Every project."""
    from sqlalchemy import select

    from selftaught.database.tables import Project

    for project in with_database(home, lambda s: s.scalars(select(Project.id)).all()):
        typer.echo(project)


def _need_project(session: Session, project: str) -> None:
    from selftaught.database.tables import Project
    from selftaught.keys import KeyRefused

    if session.get(Project, project) is None:
        raise KeyRefused(f"there is no project {project!r}")


def with_database(
    home: Path, work: Callable[[Session], Result], project: str | None = None
) -> Result:
    """What `work` gives in a transaction, of a project or of all.

    A refusal, or no database, ends the command with 1.
    """
    from sqlalchemy.exc import OperationalError

    from selftaught import tenancy
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
        with tenancy.inside(project), transaction() as session:
            return work(session)
    except KeyRefused as error:
        typer.echo(str(error), err=True)
    except OperationalError as error:
        typer.echo(f"no database: {error.orig}", err=True)
    raise typer.Exit(1)
