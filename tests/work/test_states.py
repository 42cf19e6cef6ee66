"""One table of transitions: Python's, the database's and the documentation's are the same."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from selftaught.contracts import TERMINAL, State
from selftaught.database import get_engine, transaction
from selftaught.database.tables import STATES
from selftaught.work import states
from tests.work.helpers import make_job

pytestmark = pytest.mark.usefixtures("database")

TABLES = list(states.TRANSITIONS)


def of(table: str) -> list[str]:
    """The states that the table's rows may have."""
    return STATES[table].replace("'", "").split(",")


@pytest.mark.parametrize("table", TABLES)
def test_the_database_has_the_same_states_and_transitions(table: str) -> None:
    with transaction() as session:
        arguments = session.scalars(
            text("SELECT tgargs FROM pg_trigger WHERE tgname = :name"),
            {"name": f"{table}_transition"},
        ).one()
        check = session.scalars(
            text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name"),
            {"name": f"{table}_state"},
        ).one()
    in_database = {pair.decode() for pair in bytes(arguments).split(b"\0") if pair}
    assert in_database == states.pairs(table)
    assert {state for state in State if f"'{state}'" in check} == set(of(table))
    named = {state for pair in in_database for state in pair.split(">")}
    assert named <= set(of(table))


@pytest.mark.parametrize("table", TABLES)
def test_the_database_refuses_every_other_transition(table: str) -> None:
    job_id = make_job()
    key = "id" if table == "jobs" else "job_id"
    lock = (
        ", lock_token = CASE WHEN CAST(:state AS varchar) = 'running' THEN 'x' END"
        if table == "chunks"
        else ""
    )
    put = text(f"UPDATE {table} SET state = :state{lock} WHERE {key} = :job")
    off, on = (
        text(f"ALTER TABLE {table} {what} TRIGGER {table}_transition")
        for what in ("DISABLE", "ENABLE")
    )
    for before, after in permutations(of(table), 2):
        with get_engine().connect() as connection, connection.begin() as work:
            connection.execute(off)
            connection.execute(put, {"state": before, "job": job_id})
            connection.execute(on)
            change = {"state": after, "job": job_id}
            if f"{before}>{after}" in states.pairs(table):
                assert connection.execute(put, change).rowcount == 1
            else:
                with pytest.raises(IntegrityError, match=f"from {before} to {after}"):
                    connection.execute(put, change)
            work.rollback()


def test_only_a_failed_job_leaves_its_end() -> None:
    """And no cancelled or succeeded one; what a job is made of follows it."""
    jobs = states.TRANSITIONS["jobs"]
    assert {state for state in TERMINAL if jobs.get(state)} == {State.FAILED}


def test_the_documentation_prints_this_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "work-kernel.md"
    assert states.markdown() in page.read_text()
