"""From every schema that there was, with rows that its own code wrote, to the present one and back.

`recorded/` has them: a small platform of each revision ran a job of two iterations (and a review, a
batch, a canary, a promotion once there were such), then its rows were written down while another
job was running.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import text
from starlette.testclient import TestClient

from selftaught.database import transaction
from selftaught.keeping.backup import connect, table_names
from selftaught.keeping.restore import _let_go, _parents_first, made_by_migrations
from selftaught.stack.services import project_root
from services.api.main import create_app
from tests.keeping.conftest import point_at

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.sql"))
ALEMBIC = Config(project_root() / "migrations" / "alembic.ini")

pytestmark = pytest.mark.usefixtures("database")


def load(file: Path) -> None:
    """The rows of a recording, into the tables of its revision."""
    parts = {}
    for part in file.read_bytes().split(b"\\.\n"):
        head, _, rows = part.partition(b" FROM stdin;\n")
        if rows or head.strip():
            copy = head[head.index(b"COPY ") :].decode() + " FROM STDIN"
            parts[copy.split('"')[1]] = (copy, rows)
    with connect() as connection:
        assert set(table_names(connection)) == set(parts)
        for name in _parents_first(connection, list(parts)):
            if made_by_migrations(name):
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            with connection.cursor().copy(parts[name][0].encode()) as stream:
                stream.write(parts[name][1])


def all_rows() -> dict[str, list[dict[str, Any]]]:
    with connect() as connection:
        return {
            name: [row for (row,) in connection.execute(f'SELECT to_jsonb(t) FROM "{name}" t')]
            for name in table_names(connection)
        }


def lost(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]
) -> dict[str, list[bytes]]:
    """Rows that are not there any more with all they said."""
    found = {}
    for name, rows in before.items():
        columns = sorted(rows[0]) if rows else []
        left = Counter(_key(row, columns) for row in rows)
        left -= Counter(_key(row, columns) for row in after.get(name, ()))
        if left:
            found[name] = list(left)
    return found


def _key(row: dict[str, Any], columns: list[str]) -> bytes:
    return orjson.dumps([row.get(one) for one in columns], option=orjson.OPT_SORT_KEYS)


def read_everything(before: dict[str, list[dict[str, Any]]]) -> None:
    """Each of the gateway's views of what was recorded."""

    def ids(table: str, key: str = "id") -> list[str]:
        return [row[key] for row in before.get(table, ())]

    paths = ["/v1/" + name for name in ("datasets", "jobs", "models", "templates", "canaries")]
    paths += ["/v1/evaluations", "/v1/judge/batches", "/v1/verdicts", "/v1/engines", "/metrics"]
    paths += [f"/v1/datasets/{one}" for one in ids("datasets")]
    for job in ids("jobs"):
        paths += [f"/v1/jobs/{job}{what}" for what in ("", "/events", "/iterations", "/data")]
    for job in before["jobs"]:
        if job.get("kind") == "batch":
            paths.append(f"/v1/judge/batches/{job['id']}")
    paths += [f"/v1/iterations/{one}" for one in ids("iterations")]
    paths += [f"/v1/jobs/{one['job_id']}/data/0" for one in before["iterations"][:1]]
    paths += [f"/v1/canaries/{one}/report" for one in ids("canaries")]
    for version in before["model_versions"]:
        of = f"/v1/models/{version['model']}"
        paths += [f"{of}/versions", f"{of}/aliases", f"{of}/reviews/drift"]
        paths.append(f"{of}/versions/{version['number']}")
        paths.append(f"{of}/versions/{version['number']}/reviews/summary")
    for alias in before["aliases"]:
        paths.append(f"/v1/models/{alias['model']}/aliases/{alias['alias']}")
    with TestClient(create_app(), "http://localhost", raise_server_exceptions=False) as client:
        for path in dict.fromkeys(paths):
            answer = client.get(path)
            assert answer.status_code == 200, f"{path}: {answer.text}"
        jobs = client.get("/v1/jobs?limit=100").json()["data"]
        assert {job["id"] for job in jobs} == set(ids("jobs"))


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_rows_of_every_schema_come_to_this_one_and_back(
    file: Path, bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, bare, tmp_path)
    command.upgrade(ALEMBIC, file.stem)
    load(file)
    before = all_rows()
    assert len(before["jobs"]) > 2 and len(before["evaluations"]) > 2
    command.upgrade(ALEMBIC, "head")
    assert lost(before, all_rows()) == {}
    read_everything(before)
    command.downgrade(ALEMBIC, file.stem)
    assert lost(before, all_rows()) == {} and lost(all_rows(), before) == {}


def test_a_job_that_ran_on_the_first_schema_is_taken_on(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, bare, tmp_path)
    command.upgrade(ALEMBIC, "0001")
    load(RECORDED[0])
    command.upgrade(ALEMBIC, "head")
    running = text("SELECT id FROM chunks WHERE state = 'running'")
    with transaction() as session:
        held = list(session.scalars(running))
    assert held
    _let_go()
    with transaction() as session:
        assert list(session.scalars(running)) == []
        waiting = set(session.scalars(text("SELECT chunk_id FROM outbox")))
    assert waiting >= set(held)


def test_recordings_begin_with_the_first_schema() -> None:
    """The first schema has a recording, and none is of a schema that there never was."""
    revisions = [one.revision for one in ScriptDirectory.from_config(ALEMBIC).walk_revisions()]
    assert [file.stem for file in RECORDED[:1]] == revisions[-1:]
    assert {file.stem for file in RECORDED} <= set(revisions)
