"""One engine per process, and one way to open a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

from selftaught import tenancy
from selftaught.settings import get_settings

_CONFINE = (
    "SELECT set_config('selftaught.project', %s, true), "
    "set_config('role', 'selftaught_tenant', true)"
)
IDLE_SECONDS = 30
"""A transaction in which nothing happens for so long is ended by Postgres: whoever began it was
frozen, and everybody who waits for its locks goes on. Work never waits inside one."""


@lru_cache(maxsize=1)
def get_engine() -> Engine:
    """The process's connection pool; `pool_pre_ping` survives a restarted Postgres."""
    engine = create_engine(
        get_settings().database_url,
        pool_pre_ping=True,
        # A connection beyond pool_size is closed when it is given back, and opened for the next.
        pool_size=20,
        max_overflow=10,
        hide_parameters=True,  # errors are logged; keys and people's texts must not be
        connect_args={"application_name": f"selftaught-{get_settings().role}"},
    )
    event.listen(engine, "connect", _bound_transactions)
    return engine


def _bound_transactions(connection: Any, _record: object) -> None:
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.autocommit = False


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits on success and rolls back on any exception.

    Inside a project (:mod:`selftaught.tenancy`) it sees and makes that project's rows only.
    Nothing inside may call a model, a file or the network (rule 7 of docs/architecture.md).
    """
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        project = tenancy.current()
        if project is not None:
            session.connection().exec_driver_sql(_CONFINE, (project,))
        yield session
