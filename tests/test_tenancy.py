"""Postgres itself shows and accepts a project's rows only."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from selftaught import tenancy
from selftaught.database import get_engine, transaction
from selftaught.database.tables import Base, Job, Project
from tests.conftest import Servers

SYSTEM = {
    "alembic_version",
    "devices",
    "engine_adapters",
    "engine_demands",
    "engine_servers",
    "outbox",
    "secrets",
    "totals",
}
"""Tables that no route reads for a tenant; what they hold is the platform's."""


def add_job(job_id: str, **fields: str) -> None:
    with transaction() as session:
        session.add(Job(id=job_id, state="running", model="m", recipe={}, **fields))


@pytest.fixture
def two(database: Servers) -> None:
    with transaction() as session:
        session.add_all([Project(id="red"), Project(id="blue")])
    for project in ("red", "blue"):
        with tenancy.inside(project):
            add_job(f"job_{project}")


def test_every_table_is_a_tenants_or_the_platforms(database: Servers) -> None:
    """A new table needs a policy (see 0009_projects.py) or a place in SYSTEM."""
    with get_engine().connect() as connection:
        guarded = set(
            connection.scalars(
                text(
                    "SELECT c.relname FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid "
                    "WHERE c.relrowsecurity AND p.polcmd = '*'"
                )
            )
        )
        tables = set(
            connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        )
    assert tables == guarded | SYSTEM and not guarded & SYSTEM
    for table in Base.metadata.sorted_tables:
        assert table.name in SYSTEM or table.name in guarded


def test_a_project_sees_its_own(two: None) -> None:
    for project in ("red", "blue"):
        with tenancy.inside(project), transaction() as session:
            assert session.scalars(select(Job.project_id)).all() == [project]
            assert session.scalars(select(Project.id)).all() == [project]
            assert session.get(Job, "job_red" if project == "blue" else "job_blue") is None
    with transaction() as session:
        assert len(session.scalars(select(Job.id)).all()) == 2


def test_a_project_changes_and_adds_its_own_only(two: None) -> None:
    with tenancy.inside("red"):
        with pytest.raises(ProgrammingError, match="row-level security"):
            add_job("job_x", project_id="blue")
        with transaction() as session:
            assert not session.execute(
                text("UPDATE jobs SET model='x' WHERE id='job_blue'")
            ).rowcount  # type: ignore[attr-defined]
            assert not session.execute(text("DELETE FROM jobs WHERE id='job_blue'")).rowcount  # type: ignore[attr-defined]
        with pytest.raises(ProgrammingError, match="row-level security"), transaction() as session:
            session.execute(text("UPDATE jobs SET project_id='blue'"))
        with pytest.raises(ProgrammingError, match="permission denied"), transaction() as session:
            session.execute(text("INSERT INTO projects (id) VALUES ('green')"))


def test_nothing_is_left_on_the_connection(two: None) -> None:
    """The next transaction of the pool's connection is not confined by the one before."""
    for _ in range(3):
        with tenancy.inside("red"), transaction() as session:
            session.execute(select(Job.id))
        with transaction() as session:
            assert session.scalar(text("SELECT current_user")) == "selftaught"
            assert len(session.scalars(select(Job.id)).all()) == 2


def test_a_row_without_a_project_is_refused(two: None) -> None:
    """Not put into some project or other."""
    with transaction() as session:
        session.execute(text("SET LOCAL selftaught.project = ''"))
        session.add(Job(id="job_y", state="running", model="m", recipe={}))
        with pytest.raises(IntegrityError, match="project_id"):
            session.flush()
        session.rollback()


def test_a_project_that_is_not_there_can_add_nothing(two: None) -> None:
    with tenancy.inside("nowhere"), pytest.raises(DBAPIError):
        add_job("job_z")
