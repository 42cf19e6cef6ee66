"""Locks of Postgres that outlive transactions: who removes files, and who must not meanwhile.

They end with their connection, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from selftaught.settings import get_settings

REMOVING = 7_305_003
"""Shared by all who remove files; a backup holds it alone, so that nothing goes that it names."""
COLLECTING = 7_305_004
"""Held by the one that collects."""


@contextmanager
def session_lock(key: int, *, shared: bool = False, wait: bool = False) -> Iterator[Connection]:
    """A connection of its own, without a transaction, that holds the lock.

    Raises Held if others hold it, unless `wait`.
    """
    kind = "_shared" if shared else ""
    engine = create_engine(
        get_settings().database_url,
        poolclass=NullPool,  # closing it ends the lock
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={"application_name": "selftaught-keeping"},
    )
    with engine.connect() as connection:
        if wait:
            connection.execute(text(f"SELECT pg_advisory_lock{kind}(:key)"), {"key": key})
        elif not connection.scalar(text(f"SELECT pg_try_advisory_lock{kind}(:key)"), {"key": key}):
            raise Held(key)
        yield connection


class Held(Exception):
    """Somebody else holds the lock."""

    def __init__(self, key: int) -> None:
        what = {REMOVING: "a backup is being made", COLLECTING: "another collection runs"}
        super().__init__(what[key])
