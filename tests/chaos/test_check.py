"""Each rule of the check finds what breaks it, in a job that the real kernel has run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
from sqlalchemy import text

from chaos.check import RULES, Found, check
from selftaught.database import get_engine, transaction
from selftaught.settings import get_settings
from tests.conftest import Servers
from tests.work.helpers import drain, make_dataset, make_job


@pytest.fixture
def home(database: Servers) -> Path:
    """A home with a finished job in it."""
    drain(make_job())
    run("DELETE FROM outbox")
    return get_settings().home


def run(*statements: str) -> None:
    with transaction() as session:
        for statement in statements:
            session.execute(text(statement))


def found(
    home: Path,
    known: Mapping[str, str] | None = None,
    uploaded: Mapping[str, int] | None = None,
    dead_tokens: Collection[str] = (),
) -> Found:
    with get_engine().connect() as connection:
        return check(connection, home, known or {}, uploaded or {}, dead_tokens)


def test_a_whole_job_breaks_no_rule(home: Path) -> None:
    whole = found(home)
    assert whole.broken == [] and not whole.litter and whole.files > 10


ONE_CHUNK = "(SELECT id FROM chunks WHERE kind = 'pair' ORDER BY id LIMIT 1)"
BREAKS = {
    "a job that has not ended": "UPDATE jobs SET state = 'cancelling'",
    "an iteration that has not ended": "UPDATE iterations SET state = 'running'",
    "a stage that has not ended": "UPDATE stages SET state = 'running'",
    "a chunk that has not ended": f"UPDATE chunks SET state = 'ready' WHERE id = {ONE_CHUNK}",
    "a lease that is left": "UPDATE chunks SET state = 'running', lock_token = 'x' "
    f"WHERE id = {ONE_CHUNK}",
    "a device that is left held": "INSERT INTO devices (node, name, position, holder, expires_at, "
    "seen_at) VALUES ('n', '0', 0, 'st_1.0', now() + interval '1 hour', now())",
    "a message of an ended chunk's that waits": "INSERT INTO outbox (chunk_id, queue) "
    f"VALUES ({ONE_CHUNK}, 'generator')",
    "a job that failed without a typed reason": "UPDATE jobs SET state = 'failed', "
    """error = '{"title": "t", "fault": "system", "code": "internal_error"}'""",
    "a result lost: a stage that succeeded without one of its chunks": "DELETE FROM outbox; "
    f"UPDATE chunks SET state = 'failed' WHERE id = {ONE_CHUNK}",
    "a result applied twice: a stage that counted more than its chunks": "UPDATE stages "
    "SET chunks_done = chunks_done + 1 WHERE kind = 'pair'",
    "a result applied twice: two artifacts of one kind by one chunk": "INSERT INTO artifacts "
    "(id, kind, path, sha256, bytes, rows) SELECT 'art_2', kind, regexp_replace(path, "
    "'[0-9a-f]{16}.jsonl', '0123456789abcdef.jsonl'), sha256, bytes, rows FROM artifacts "
    "WHERE path LIKE '%/pair/%' LIMIT 1",
    "a result applied twice: two versions of one iteration": "INSERT INTO model_versions (id, "
    "model, number, job_id, iteration_number, parent_id, path, sha256, lineage) SELECT "
    "'ver_' || n, model, 1 + n, (SELECT id FROM jobs), 1, id, 'p' || n, '0', '{}' FROM "
    "model_versions, generate_series(1, 2) n WHERE number = 1",
    "a result applied twice: a step told of twice": "INSERT INTO events (job_id, seq, type, data) "
    "SELECT job_id, 1000, type, data FROM events WHERE type = 'job.succeeded'",
    "a gap in a job's events": "DELETE FROM events WHERE seq = 3",
    "a gap in a model's versions": "UPDATE model_versions SET number = 7 WHERE number = 1",
    "an alias that is not its newest move": "INSERT INTO aliases (model, alias, version_id, "
    "revision) SELECT model, 'latest', id, 1 FROM model_versions WHERE number = 1",
    "an artifact that nothing names": "DELETE FROM datasets; UPDATE jobs SET dataset_id = NULL",
}


def test_each_rule_finds_what_breaks_it(home: Path) -> None:
    assert BREAKS.keys() == RULES.keys()
    with get_engine().connect() as connection:
        for rule, statements in BREAKS.items():
            # The database itself would not let most of it happen.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            for statement in reversed(statements.split("; ")):
                connection.execute(text(statement))
            told = check(connection, home, {}, {}, ()).broken
            connection.rollback()
            assert any(one.startswith(rule) for one in told), (rule, told)


def test_rows_and_files_must_agree(home: Path) -> None:
    artifacts = home / "artifacts"
    first, second, *_ = sorted(artifacts.rglob("pair/*.jsonl"))
    first.unlink()
    second.write_text("{}\n")
    (artifacts / "datasets" / "ds_1.jsonl").write_text("{}\n")
    (artifacts / "datasets" / ".ds_2.jsonl.7.tmp").write_text("")
    chunk = ".".join(second.name.split(".")[:2])
    second.with_name(f"{chunk}.0123456789abcdef.jsonl").write_text("{}\n")
    (home / "versions" / "ver_1").mkdir(parents=True)
    told = found(home)
    assert sorted(one.partition(":")[0] for one in told.broken) == [
        "a row without its artifact",
        "an artifact that is not what its row says",
    ]
    assert told.litter == {
        "files of requests that were cut off": 1,
        "unfinished files of killed processes": 1,
        "files of leases that were lost": 1,
        "weights of leases lost": 1,
    }


def test_what_was_promised_must_be_there(home: Path) -> None:
    dataset = make_dataset(5)
    assert found(home, {"r0/a": dataset}, {dataset: 5}).broken == []
    told = found(home, {"r0/a": "job_1"}, {dataset: 6}).broken
    assert [one.partition(":")[0] for one in told] == ["a result lost"] * 2


def test_a_late_result_is_found(home: Path) -> None:
    path = next((home / "artifacts").rglob("pair/*.jsonl"))
    token = path.name.split(".")[2]
    assert found(home, dead_tokens=["0123456789abcdef"]).broken == []
    (told,) = found(home, dead_tokens=[token]).broken
    assert told.startswith("a result applied by a worker that had lost its lease")
