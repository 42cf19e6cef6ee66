"""The database layer: errors tell no parameters, and the schema goes back with its rows kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from selftaught.database import get_engine, transaction
from selftaught.settings import get_settings
from selftaught.stack.services import project_root
from tests.conftest import Servers


def test_an_error_tells_no_parameter(database: Servers) -> None:
    with pytest.raises(ProgrammingError, match="nowhere") as raised, transaction() as session:
        session.execute(text("SELECT :key FROM nowhere"), {"key": "a-secret"})
    assert "a-secret" not in str(raised.value)


@pytest.fixture
def other(database: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's settings point at another, empty database."""
    url = make_url(database.database_url)
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE other"))
    monkeypatch.setenv(
        "DATABASE_URL", url.set(database="other").render_as_string(hide_password=False)
    )
    get_settings.cache_clear()
    get_engine.cache_clear()
    yield
    get_engine().dispose()
    with server.connect() as connection:
        connection.execute(text("DROP DATABASE other WITH (FORCE)"))
    server.dispose()


def test_a_downgrade_keeps_jobs_of_newer_kinds(other: None) -> None:
    alembic = Config(project_root() / "migrations" / "alembic.ini")
    command.upgrade(alembic, "head")
    with transaction() as session:
        for kind in ("review", "batch"):
            session.execute(
                text(
                    "INSERT INTO jobs (id, kind, state, model, recipe)"
                    " VALUES (:kind, :kind, 'succeeded', 'm', '{}')"
                ),
                {"kind": kind},
            )
    command.downgrade(alembic, "0003")
    command.upgrade(alembic, "head")
    with transaction() as session:
        kinds = session.scalars(text("SELECT kind FROM jobs ORDER BY kind")).all()
        valid = text("SELECT convalidated FROM pg_constraint WHERE conname = 'jobs_kind'")
        assert kinds == ["batch", "review"] and session.scalar(valid) is True
    command.check(alembic)
