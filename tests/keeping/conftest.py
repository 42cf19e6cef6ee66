"""An empty place to restore to: a database without rows, or without tables, and a new home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from selftaught import store
from selftaught.database import get_engine, transaction
from selftaught.database.tables import Base
from selftaught.ids import new_id
from selftaught.settings import get_settings
from tests.conftest import Servers

Go = Callable[..., Path]


@pytest.fixture(scope="session")
def second(servers: Servers) -> str:
    """URL of another database on the same server."""
    url = make_url(servers.database_url)
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE second"))
    server.dispose()
    second = url.set(database="second").render_as_string(hide_password=False)
    return second + "?options=-cselftaught.project%3Ddefault"  # as in tests/conftest.py


@pytest.fixture
def bare(second: str) -> str:
    """URL of a database without tables."""
    server = create_engine(second, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    server.dispose()
    return second


@pytest.fixture
def go_elsewhere(
    database: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Go]:
    """Call it: from then on this process's home is an empty one, and no table has rows."""

    def go() -> Path:
        empty()
        home = tmp_path / new_id("home")
        point_at(monkeypatch, database.database_url, home)
        return home

    yield go


def point_at(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Let this process's settings name this database and this home."""
    get_engine().dispose()
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("SELFTAUGHT_HOME", str(home))
    get_settings.cache_clear()
    get_engine.cache_clear()
    store._open.cache_clear()


def empty() -> None:
    """Remove every row that this process's database has."""
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with transaction() as session:
        session.execute(text(f"TRUNCATE {tables} CASCADE"))
        session.execute(text("INSERT INTO projects (id) VALUES ('default')"))
