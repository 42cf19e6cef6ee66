"""Backup and restore: a job goes on elsewhere as if nothing had been; what is wrong is refused."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from selftaught import aliases, jsonl
from selftaught.artifacts import hash_folder, publish_rows, resolve, share
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Iteration, Job, ModelVersion, Stage
from selftaught.ids import new_id
from selftaught.keeping import backup as backups
from selftaught.keeping.backup import BackupError, backup
from selftaught.keeping.locks import REMOVING, Held, session_lock
from selftaught.keeping.restore import restore
from selftaught.settings import get_settings
from selftaught.work import kernel
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler
from tests.keeping.conftest import Go, point_at
from tests.s3 import S3
from tests.work.helpers import HANDLERS, chunk, drain, job, make_job, ready

pytestmark = pytest.mark.usefixtures("database")


def from_inputs(lease: Lease) -> Result:
    """Rows that follow from every row of every file that the chunk is given."""
    paths = sorted(
        path
        for given in lease.input.values()
        for path in (given if isinstance(given, list) else [given])
        if str(path).endswith(".jsonl")
    )
    rows = [row for path in paths for row in jsonl.read(resolve(path))]
    out = [{"n": at, "of": lease.kind, "read": rows} for at in range(max(2, len(rows)))]
    published = publish_rows(lease.kind, lease.path(lease.kind), out)
    return Result(counts={"rows": len(out), "read": len(rows)}, artifact=published)


def with_weights(session: Any, lease: Lease, _result: Result) -> None:
    """A version whose weights are a file."""
    version_id = new_id("ver")
    folder = get_settings().versions_dir / version_id
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(f"weights of iteration {lease.iteration}")
    version = ModelVersion(
        id=version_id,
        model=f"m-{lease.job_id}",
        number=lease.iteration,
        path=version_id,
        sha256=hash_folder(folder),
        lineage={},
    )
    session.add(version)
    session.flush()
    session.get_one(Iteration, lease.iteration_id).version_id = version.id


READERS = {
    kind: Handler(from_inputs, with_weights if handler.apply else None)
    for kind, handler in HANDLERS.items()
}
READERS |= {kind: Handler(HANDLERS[kind].run, with_weights) for kind in ("register", "train")}
READERS |= {kind: HANDLERS[kind] for kind in ("validate", "gate", "select")}


def outcome(job_id: str) -> list[tuple[Any, ...]]:
    """All that a job came to, but for ids and times."""
    with transaction() as session:
        rows = session.execute(
            select(Iteration.number, Stage.position, Stage.kind, Stage.state, Stage.counts)
            .add_columns(Chunk.position, Chunk.state, Chunk.attempt, Chunk.counts, Artifact.sha256)
            .join(Stage, Stage.iteration_id == Iteration.id)
            .join(Chunk, Chunk.stage_id == Stage.id)
            .outerjoin(Artifact, Artifact.id == Chunk.artifact_id)
            .where(Iteration.job_id == job_id)
            .order_by(Iteration.number, Stage.position, Chunk.position)
        )
        return [(session.get_one(Job, job_id).state,), *map(tuple, rows)]


def lines_of(table: str) -> list[str]:
    with transaction() as session:
        return sorted(session.scalars(text(f"SELECT {table}::text FROM {table}")))


def middle_of_a_job() -> tuple[str, Lease]:
    """A job of two iterations whose first judge stage is half done, and the lease of a chunk."""
    job_id = make_job(iterations=2)
    drain(job_id, READERS, until="judge")
    lease = kernel.claim(ready(job_id)[0], "holder")
    assert lease is not None
    return job_id, lease


def test_a_job_that_was_backed_up_in_its_middle_ends_elsewhere_as_it_would_have(
    tmp_path: Path, bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, lease = middle_of_a_job()
    made = backup(tmp_path / "saved")
    assert made.tables["jobs"].rows == 1 and made.files > 3
    assert kernel.publish(lease, READERS[lease.kind].run(lease))
    drain(job_id, READERS)
    whole = outcome(job_id)
    assert whole[0] == ("succeeded",)

    home = tmp_path / "elsewhere"
    point_at(monkeypatch, bare, home)
    restore(tmp_path / "saved", print)
    assert chunk(lease.chunk_id).state == "ready" and chunk(lease.chunk_id).attempt == 0
    late = READERS[lease.kind].run(lease)
    assert not kernel.finish(lease, late), "the old holder's lease is void"
    drain(job_id, READERS)
    assert outcome(job_id) == whole
    with transaction() as session:
        for artifact in session.scalars(select(Artifact)):
            assert (home / "artifacts" / artifact.path).is_file()
        for version in session.scalars(select(ModelVersion)):
            assert hash_folder(home / "versions" / version.path) == version.sha256
        session.execute(text("INSERT INTO outbox (chunk_id, queue) SELECT id, '' FROM chunks"))


def test_every_row_comes_back(tmp_path: Path, go_elsewhere: Go) -> None:
    job_id, lease = middle_of_a_job()
    assert kernel.publish(lease, READERS[lease.kind].run(lease))
    odd = 'a tab\t, a newline\n, a backslash \\ and "ü\u2028"'
    with transaction() as session:
        session.execute(text("INSERT INTO secrets VALUES ('odd', :odd)"), {"odd": odd})
        newest = session.scalars(select(ModelVersion)).first()
        assert newest is not None
        aliases.move(session, newest.model, "latest", newest, odd)
    backup(tmp_path / "saved")
    names = [path.name.removesuffix(".gz") for path in (tmp_path / "saved/tables").iterdir()]
    before = {name: lines_of(name) for name in names}
    go_elsewhere()
    restore(tmp_path / "saved", print)
    assert {name: lines_of(name) for name in names} == before
    assert job(job_id).state == "running" and len(before) > 20


def test_a_backup_is_for_its_owner_only(tmp_path: Path) -> None:
    middle_of_a_job()
    backup(tmp_path / "saved")
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o700
    files = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("harm", ["cut", "changed", "missing", "list", "table", "manifest"])
def test_a_damaged_backup_is_refused_and_changes_no_row(
    tmp_path: Path, go_elsewhere: Go, harm: str
) -> None:
    middle_of_a_job()
    saved = tmp_path / "saved"
    backup(saved)
    file = sorted((saved / "artifacts").rglob("*.jsonl"))[0]
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "changed":
        file.write_bytes(file.read_bytes().replace(b"say", b"SAY"))
    elif harm == "missing":
        file.unlink()
    elif harm == "list":
        (saved / "files.jsonl").write_bytes(b"")
    elif harm == "table":
        packed = saved / "tables" / "chunks.gz"
        packed.write_bytes(packed.read_bytes()[:-20])
    else:
        (saved / "manifest.json").unlink()
    go_elsewhere()
    with pytest.raises(BackupError):
        restore(saved, print)
    assert lines_of("jobs") == lines_of("artifacts") == []


def test_a_database_with_rows_is_refused_as_it_is(tmp_path: Path) -> None:
    job_id, _ = middle_of_a_job()
    backup(tmp_path / "saved")
    before = outcome(job_id)
    with pytest.raises(BackupError, match="not empty"):
        restore(tmp_path / "saved", print)
    assert outcome(job_id) == before


def test_a_newer_schema_is_refused(tmp_path: Path, go_elsewhere: Go) -> None:
    middle_of_a_job()
    backup(tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    manifest["revision"] = "9999"
    (tmp_path / "saved" / "manifest.json").write_text(json.dumps(manifest))
    go_elsewhere()
    with pytest.raises(BackupError, match="newer"):
        restore(tmp_path / "saved", print)


def test_a_restore_that_was_interrupted_goes_on(
    tmp_path: Path, go_elsewhere: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, _ = middle_of_a_job()
    backup(tmp_path / "saved")
    go_elsewhere()
    packed = tmp_path / "saved" / "tables" / "stages.gz"

    class Killed(BaseException):
        pass

    def say(what: str) -> None:
        if what.endswith(" rows"):  # the files are there, and no row
            raise Killed

    with pytest.raises(Killed):
        restore(tmp_path / "saved", say)
    assert lines_of("jobs") == [] and packed.exists()
    restore(tmp_path / "saved", print)
    drain(job_id, READERS)
    assert job(job_id).state == "succeeded"


def test_a_file_in_the_way_is_not_overwritten(tmp_path: Path, go_elsewhere: Go) -> None:
    middle_of_a_job()
    backup(tmp_path / "saved")
    home = go_elsewhere()
    (saved,) = (tmp_path / "saved" / "artifacts" / "datasets").iterdir()
    other = home / "artifacts" / "datasets" / saved.name
    other.parent.mkdir(parents=True)
    other.write_text("somebody's")
    with pytest.raises(BackupError, match="another file"):
        restore(tmp_path / "saved", print)
    assert other.read_text() == "somebody's" and lines_of("jobs") == []


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_rows_whose_files_are_not_good_make_no_backup(tmp_path: Path, harm: str) -> None:
    job_id, _ = middle_of_a_job()
    with transaction() as session:
        path = session.scalars(select(Artifact.path).where(Artifact.kind == "pair")).first()
    file = get_settings().artifacts_dir / str(path)
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(b"{}\n")
    with pytest.raises(BackupError, match=str(path)):
        backup(tmp_path / "saved")
    assert not list(tmp_path.glob("saved*")) and job(job_id).state == "running"


def test_nothing_is_removed_while_a_backup_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle_of_a_job()
    during = []
    copy = backups._copy_files

    def looking(folder: Path) -> tuple[int, int, str]:
        with pytest.raises(Held), session_lock(REMOVING, shared=True):
            pass
        during.append(folder)
        return copy(folder)

    monkeypatch.setattr(backups, "_copy_files", looking)
    backup(tmp_path / "saved")
    assert during
    with session_lock(REMOVING, shared=True):
        pass


def test_what_comes_after_the_snapshot_is_not_in_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go_elsewhere: Go
) -> None:
    job_id, lease = middle_of_a_job()
    write = backups._write_table

    def working_on(connection: Any, name: str, path: Path) -> backups.Table:
        table = write(connection, name, path)
        if name == "artifacts":  # and chunks come later: without a snapshot they name more
            assert kernel.publish(lease, READERS[lease.kind].run(lease))
            drain(job_id, READERS)
        return table

    monkeypatch.setattr(backups, "_write_table", working_on)
    backup(tmp_path / "saved")
    whole = outcome(job_id)
    go_elsewhere()
    restore(tmp_path / "saved", print)
    assert job(job_id).state == "running"
    drain(job_id, READERS)
    assert outcome(job_id) == whole


def test_artifacts_in_a_bucket_come_from_there_and_go_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go_elsewhere: Go
) -> None:
    s3 = S3()
    try:
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SELFTAUGHT_ARTIFACTS_URL", f"s3://{s3.new_bucket()}/one")
        url, home = get_settings().database_url, get_settings().home
        point_at(monkeypatch, url, home)
        job_id, _ = middle_of_a_job()
        for folder in home.joinpath("versions").iterdir():
            share(folder.resolve())
        point_at(monkeypatch, url, tmp_path / "another node")
        backup(tmp_path / "saved")
        assert not (tmp_path / "another node" / "artifacts" / "jobs").exists(), "copied past it"
        monkeypatch.setenv("SELFTAUGHT_ARTIFACTS_URL", f"s3://{s3.new_bucket()}/two")
        go_elsewhere()
        restore(tmp_path / "saved", print)
        point_at(monkeypatch, get_settings().database_url, tmp_path / "a third node")
        drain(job_id, READERS)
        assert job(job_id).state == "succeeded"
        with transaction() as session:
            assert len(session.scalars(select(Artifact)).all()) > 10
    finally:
        s3.stop()
