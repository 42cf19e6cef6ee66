"""Real servers for every test that asks for them: one Postgres and one Redis per session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings

from selftaught.stack.handle import Stack

settings.register_profile("selftaught", deadline=None)  # timings never decide a test
settings.load_profile("selftaught")


@dataclass(frozen=True)
class Servers:
    database_url: str
    redis_url: str


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A migrated Postgres and a Redis of our own."""
    home = tmp_path_factory.mktemp("servers")
    with Stack(home, only={"postgres", "redis", "migrations"}) as stack:
        yield Servers(stack.database_url, stack.redis_url)


@pytest.fixture
def database(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Servers]:
    """Empty tables and an empty home; this process's settings point at them."""
    with fresh(servers, tmp_path, monkeypatch) as found:
        yield found


@contextmanager
def fresh(servers: Servers, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """What `database` gives, for fixtures that live longer than a test."""
    from sqlalchemy import text

    from selftaught.database import get_engine, transaction
    from selftaught.database.tables import Base
    from selftaught.settings import get_settings

    # What a test adds by itself belongs to the first project, as what most requests add.
    own = "?options=-cselftaught.project%3Ddefault"
    servers = replace(servers, database_url=servers.database_url + own)
    monkeypatch.setenv("DATABASE_URL", servers.database_url)
    monkeypatch.setenv("SELFTAUGHT_OPEN", "true")
    monkeypatch.setenv("REDIS_URL", servers.redis_url)
    monkeypatch.setenv("SELFTAUGHT_HOME", str(home))
    monkeypatch.setenv("SELFTAUGHT_HEARTBEAT_SECONDS", "0.2")
    get_settings.cache_clear()
    get_engine.cache_clear()
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with transaction() as session:
        session.execute(text(f"TRUNCATE {tables} CASCADE"))
        session.execute(text("INSERT INTO projects (id) VALUES ('default')"))
    yield servers
    get_engine().dispose()
    get_settings.cache_clear()
    get_engine.cache_clear()
