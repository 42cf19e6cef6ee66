"""A connection breaks in the commit of an upload: rows and file agree, whichever way it went."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, event, func, select
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from selftaught.artifacts import resolve
from selftaught.database import get_engine, transaction
from selftaught.database.tables import Artifact
from selftaught.settings import get_settings
from tests.api.conftest import assert_problem


def has_artifact(connection: Connection) -> bool:
    """Other transactions of the request have none."""
    return connection.execute(select(func.count()).select_from(Artifact)).scalar_one() > 0


@contextmanager
def broken_commit(reached: bool) -> Iterator[None]:
    """The next commit of a new artifact reaches the server or not; its answer never comes."""

    def commit(connection: Connection) -> None:
        if not has_artifact(connection):
            return
        event.remove(get_engine(), "commit", commit)
        if reached:
            connection.connection.commit()
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

    event.listen(get_engine(), "commit", commit)
    yield
    assert not event.contains(get_engine(), "commit", commit)


def upload(client: TestClient) -> None:
    answer = client.post("/v1/datasets", content="a\nb\n", headers={"content-type": "text/plain"})
    assert_problem(answer, 503, "database_unavailable")


def files() -> list[str]:
    return [path.name for path in get_settings().artifacts_dir.rglob("*.jsonl")]


@pytest.mark.parametrize(("reached", "rows"), [(True, 1), (False, 0)])
def test_rows_and_file_agree(client: TestClient, reached: bool, rows: int) -> None:
    with broken_commit(reached):
        upload(client)
    with transaction() as session:
        paths = list(session.scalars(select(Artifact.path)))
    assert len(paths) == rows
    for path in paths:
        assert resolve(path).read_text().count("\n") == 2, "a row without its file"
    assert len(files()) == rows, "a file without a row"


def test_a_file_stays_when_nobody_can_say(client: TestClient) -> None:
    """The database is still away when it is asked what became of the commit."""

    def refuse(_connection: Connection) -> None:
        raise OperationalError("BEGIN", {}, Exception("connection refused"))

    def commit(connection: Connection) -> None:
        if not has_artifact(connection):
            return
        event.listen(get_engine(), "begin", refuse)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

    event.listen(get_engine(), "commit", commit)
    try:
        upload(client)
    finally:
        event.remove(get_engine(), "commit", commit)
        event.remove(get_engine(), "begin", refuse)
    assert len(files()) == 1
