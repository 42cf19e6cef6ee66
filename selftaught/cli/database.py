"""The operator's way past the gateway: straight to the database, with a row in the audit log."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from selftaught.cli.errors import Failed

if TYPE_CHECKING:
    from pydantic import ValidationError
    from sqlalchemy.orm import Session

DEFAULT_PROJECT = "default"
Result = TypeVar("Result")


def with_database(
    home: Path,
    work: Callable[[Session], Result],
    project: str | None = None,
    told: tuple[str, str] | None = None,
) -> Result:
    """What `work` gives in a transaction, of a project or of all; `told`, what it is and to what
    it is done, stands in the project's audit log.

    Raises Failed, KeyRefused, OperationalError.
    """
    from selftaught import audit, tenancy
    from selftaught.database import transaction
    from selftaught.stack import state

    if "DATABASE_URL" not in os.environ:
        record = state.read(home.resolve())
        if record is None or not record["running"]:
            raise Failed(f"no stack runs in {home}, and DATABASE_URL is not set")
        os.environ["DATABASE_URL"] = record["urls"]["database"]
    with ExitStack() as around:
        if told is not None:
            with transaction() as session:
                _need_project(session, project or DEFAULT_PROJECT)
            around.enter_context(audit.command(project or DEFAULT_PROJECT, *told))
        with tenancy.inside(project), transaction() as session:
            return work(session)


def first(error: ValidationError) -> str:
    """The first thing that is wrong, with its place."""
    found = error.errors()[0]
    what = found["msg"].removeprefix("Value error, ")
    return f"{'.'.join(str(part) for part in found['loc'])}: {what}"


def _need_project(session: Session, project: str) -> None:
    from selftaught.database.tables import Project
    from selftaught.keys import KeyRefused

    if session.get(Project, project) is None:
        raise KeyRefused(f"there is no project {project!r}")
