"""Whose rows a piece of work may see: one project's, or everybody's.

A gateway's request and a worker's chunk belong to a project. Every transaction that they open
(:func:`selftaught.database.transaction`) then takes on the role `selftaught_tenant`, for which
Postgres's row-level security shows and accepts rows of that project only; a query that forgets to
ask whose rows it reads cannot read another's. Rows that it adds get the project by the column's
default. Work outside any project (relay, reaper, operator's commands) sees every row, and cannot
add a row of a project without naming it.

The project follows the context, as in :mod:`contextvars`: tasks and `to_thread` have their
starter's, a plain thread has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

DEFAULT = "default"
"""The project that is there from the first: the operator's own."""
HEADER = "x-selftaught-project"
"""How the gateway tells an evaluator for whom it asks. Evaluators are not for clients."""

_project: ContextVar[str | None] = ContextVar("selftaught_project", default=None)


def current() -> str | None:
    """The project of this context; None: outside any."""
    return _project.get()


def enter(project: str | None) -> None:
    """From here to the end of this context, a request or a task, work for this project."""
    _project.set(project)


@contextmanager
def inside(project: str | None) -> Iterator[None]:
    """Work for this project in the block; None: outside any."""
    token = _project.set(project)
    try:
        yield
    finally:
        _project.reset(token)
