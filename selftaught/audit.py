"""The audit log: who did what. Rows never hold what was sent.

A row is added before what it tells of is done, and completed after it; so nothing happens without
one. A row whose status is null is of a request under way, or of one whose gateway died. Inside a
project rows can only be read: add and complete them outside any.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import update
from sqlalchemy.orm import Session

from selftaught.database import transaction
from selftaught.database.tables import Audit
from selftaught.ids import new_id
from selftaught.keys import Caller

_LONGEST = 500  # characters of a path


def begin(
    session: Session,
    caller: Caller,
    method: str,
    route: str,
    path: str,
    request_id: str | None,
    client: str | None,
) -> str:
    """Add the row of a request; its id."""
    row = Audit(
        id=new_id("aud"),
        project_id=caller.project,
        key_id=caller.key_id,
        key_name=caller.key_name,
        method=method,
        route=route,
        path=path[:_LONGEST],
        request_id=request_id,
        client=client,
    )
    session.add(row)
    session.flush()
    return row.id


def complete(session: Session, row_id: str, status: int, target: str | None) -> None:
    """What a request came to: the status and the Location of its answer."""
    which = update(Audit).where(Audit.id == row_id, Audit.status.is_(None))
    session.execute(which.values(status=status, target=target))


@contextmanager
def command(project: str, name: str, what: str) -> Iterator[None]:
    """Log an operator's command, which the block carries out; outside any transaction.

    Its status is 200, or 409 if the block raises.
    """
    client = f"{getpass.getuser()}@{socket.gethostname()}"
    caller = Caller(project, frozenset())
    with transaction() as session:
        row_id = begin(session, caller, "CLI", name, what, None, client)
    status = 409
    try:
        yield
        status = 200
    finally:
        with transaction() as session:
            complete(session, row_id, status, None)
