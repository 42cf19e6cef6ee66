"""The operator's commands, and the janitor, as they are called."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selftaught.cli import app
from selftaught.keeping import janitor
from selftaught.keeping.locks import COLLECTING, session_lock
from selftaught.settings import get_settings
from tests.keeping.conftest import Go
from tests.keeping.test_backup import READERS, middle_of_a_job
from tests.work.helpers import drain, job

pytestmark = pytest.mark.usefixtures("database")


def run(*arguments: str | Path) -> tuple[int, str]:
    home = ["--home", str(get_settings().home)]
    done = CliRunner().invoke(app, [*map(str, arguments), *home])
    return done.exit_code, done.output


def test_backup_restore_and_gc_as_commands(tmp_path: Path, go_elsewhere: Go) -> None:
    job_id, _ = middle_of_a_job()
    saved = tmp_path / "saved"
    code, said = run("backup", saved)
    assert code == 0 and " rows in " in said and " files, " in said, said
    assert run("backup", saved) == (1, f"error: {saved} is there already\n")
    code, said = run("restore", saved)
    assert code == 1 and "not empty" in said
    go_elsewhere()
    code, said = run("restore", saved)
    assert code == 0 and "restored: what " in said, said
    drain(job_id, READERS)
    assert job(job_id).state == "succeeded"
    left = get_settings().artifacts_dir / "datasets" / "ds_gone.jsonl"
    left.write_bytes(b"x" * 1500)
    code, said = run("gc", "--safe-hours", "0", "--dry-run")
    assert code == 0 and said.endswith("files without a row: 1, 1.5 kB\nwould free 1.5 kB\n")
    assert left.exists()
    code, said = run("gc", "--safe-hours", "0")
    assert code == 0 and said.endswith("freed 1.5 kB\n") and not left.exists()
    with session_lock(COLLECTING):
        assert run("gc") == (1, "error: another collection runs\n")


def test_the_janitor_tells_what_it_did_and_outlives_what_stops_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, janitor.__name__)
    left = get_settings().artifacts_dir / "datasets" / "ds_gone.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text("{}\n")
    with session_lock(COLLECTING):
        janitor.run_once()
    assert "nothing collected: another collection runs" in caplog.text and left.exists()
    monkeypatch.setattr(get_settings(), "gc_safe_hours", 1e-9)
    janitor.run_once()
    assert "removed files without a row: 1, 3 bytes" in caplog.text and not left.exists()
    monkeypatch.setattr(get_settings(), "database_url", "postgresql+psycopg://nobody@127.0.0.1:1/x")
    janitor.run_once()
    assert "the collection ended early: OperationalError" in caplog.text
