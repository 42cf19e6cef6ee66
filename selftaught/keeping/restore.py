"""From a backup to an empty database and a home: whole, or nothing that anybody would use.

Files come first: until a row names them they are nothing. Rows come in one transaction, at the
schema revision that they were saved at, and are then migrated forward. A restore that was
interrupted before its rows were in can be started again, and keeps the files that are in place.
Once they are in, a start of the platform does the rest: it migrates, and leases of then run out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy import text

from selftaught import artifacts
from selftaught.contracts import State
from selftaught.database import transaction
from selftaught.database.tables import Chunk
from selftaught.keeping.backup import (
    BackupError,
    Manifest,
    Say,
    Table,
    connect,
    copy_file,
    file_sha256,
    quoted,
    read_manifest,
    table_names,
)
from selftaught.settings import get_settings
from selftaught.stack.services import project_root
from selftaught.work import pipeline
from selftaught.work.events import emit

Connection = psycopg.Connection[tuple[Any, ...]]

_PIECE = 1 << 20
_OF_PROCESSES = ("engine_adapters", "engine_servers", "engine_demands", "devices")
"""What processes of the platform that was backed up said of themselves."""


def restore(source: Path, say: Say) -> Manifest:
    """Restore a backup. Raises BackupError before anything is changed that anybody would use.

    Nothing else may work on the database and the home meanwhile.
    """
    manifest = read_manifest(source)
    alembic = Config(project_root() / "migrations" / "alembic.ini")
    _need_revision(alembic, manifest.revision)
    with connect() as connection:
        at = _need_empty(connection)
    say("checking the backup")
    _check_tables(source, manifest)
    _check_list(source, manifest)
    say(f"restoring {manifest.files} files")
    _place_files(source)
    say(f"restoring {sum(table.rows for table in manifest.tables.values())} rows")
    _go_to(alembic, at, manifest.revision)
    with connect() as connection:
        _load(connection, source, manifest)
    command.upgrade(alembic, "head")
    _let_go()
    return manifest


def _need_revision(alembic: Config, revision: str) -> None:
    try:
        ScriptDirectory.from_config(alembic).get_revision(revision)
    except CommandError as error:
        detail = f"the backup's schema {revision} is unknown here: use a newer selftaught"
        raise BackupError(detail) from error


def _need_empty(connection: Connection) -> str | None:
    """The revision of an empty database; None: it has no schema. Raises BackupError."""
    tables = table_names(connection)
    for name in tables:
        count = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT {}) AS found").format(
            sql.Identifier(name), sql.Literal(made_by_migrations(name) + 1)
        )
        (rows,) = connection.execute(count).fetchone() or (0,)
        if rows > made_by_migrations(name):
            raise BackupError(f"the database is not empty: there are rows in {name}")
    if not tables:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        raise BackupError("the database has tables and no revision")
    return str(row[0])


def made_by_migrations(table: str) -> int:
    """Rows of a table that a new database has: the project `default`, from revision 0009 on."""
    return 1 if table == "projects" else 0


def _go_to(alembic: Config, at: str | None, revision: str) -> None:
    """Bring the empty database's schema to a revision, be it forward or back."""
    if at is not None and at != revision:
        script = ScriptDirectory.from_config(alembic)
        before = {one.revision for one in script.iterate_revisions(at, "base")}
        if revision in before:
            command.downgrade(alembic, revision)
    command.upgrade(alembic, revision)


def _check_tables(source: Path, manifest: Manifest) -> None:
    for name, table in manifest.tables.items():
        digest, rows = hashlib.sha256(), 0
        for data in _unpacked(source, name):
            digest.update(data)
            rows += data.count(b"\n")
        if (rows, digest.hexdigest()) != (table.rows, table.sha256):
            raise BackupError(f"table {name} of the backup is damaged")


def _unpacked(source: Path, name: str) -> Iterator[bytes]:
    path = source / "tables" / f"{name}.gz"
    try:
        with gzip.open(path) as file:
            while data := file.read(_PIECE):
                yield data
    except (OSError, EOFError, zlib.error) as error:
        raise BackupError(f"{path} cannot be read: {error}") from error


def _check_list(source: Path, manifest: Manifest) -> None:
    path = source / "files.jsonl"
    if not path.is_file() or file_sha256(path) != manifest.files_sha256:
        raise BackupError(f"{path} is damaged")


def _listed(source: Path) -> Iterator[dict[str, Any]]:
    with (source / "files.jsonl").open("rb") as file:
        for line in file:
            yield json.loads(line)


def _place_files(source: Path) -> None:
    """Copy each file into the home, checked; then share with other nodes what they share."""
    folders: set[Path] = set()
    settings = get_settings()
    tops = {"artifacts": settings.artifacts_dir, "versions": settings.versions_dir}
    for folder in tops.values():
        folder.mkdir(parents=True, exist_ok=True)
    for entry in _listed(source):
        top, _, rest = entry["path"].partition("/")
        root = tops[top].resolve()
        target = (root / rest).resolve()
        if not target.is_relative_to(root):
            raise BackupError(f"the backup names a file outside the home: {entry['path']}")
        _place(source / entry["path"], target, entry["sha256"])
        if top == "artifacts":
            artifacts.share(target)
        else:
            folders.add(root / rest.partition("/")[0])
    for folder in folders:
        artifacts.sync_folder(folder)
        artifacts.share(folder)


def _place(source: Path, target: Path, sha256: str) -> None:
    if target.exists():
        if file_sha256(target) != sha256:
            raise BackupError(f"{target} is there already, and is another file")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        copy_file(source, temporary)
        if file_sha256(temporary) != sha256:
            raise BackupError(f"{source} is damaged")
        temporary.chmod(0o644)
        temporary.rename(target)
        artifacts.sync_folder(target.parent)
    except FileNotFoundError as error:
        raise BackupError(f"{source} is missing") from error
    finally:
        temporary.unlink(missing_ok=True)


def _load(connection: Connection, source: Path, manifest: Manifest) -> None:
    """All rows, in one transaction."""
    there = table_names(connection)
    if set(there) != set(manifest.tables):
        raise BackupError(
            f"the backup's tables are not those of its revision: {sorted(manifest.tables)}"
        )
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(quoted(there))
    connection.execute(lock)
    _need_empty(connection)
    for name in there:
        if made_by_migrations(name):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
    for name in _parents_first(connection, there):
        _load_table(connection, source, name, manifest.tables[name])
    for name, column in _counted(connection):
        connection.execute(
            sql.SQL(
                "SELECT setval(pg_get_serial_sequence({table}, {name}),"
                " coalesce(max({column}), 0) + 1, false) FROM {of}"
            ).format(
                table=sql.Literal(f'"{name}"'),
                name=sql.Literal(column),
                column=sql.Identifier(column),
                of=sql.Identifier(name),
            )
        )
    connection.commit()


def _load_table(connection: Connection, source: Path, name: str, table: Table) -> None:
    copy = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(name), quoted(table.columns))
    cursor = connection.cursor()
    with cursor.copy(copy) as stream:
        for data in _unpacked(source, name):
            stream.write(data)
    if cursor.rowcount != table.rows:
        raise BackupError(f"{name}: {cursor.rowcount} of {table.rows} rows")


def _parents_first(connection: Connection, names: list[str]) -> list[str]:
    """Tables in an order in which every foreign key finds its row."""
    needs: dict[str, set[str]] = {name: set() for name in names}
    keys = connection.execute(
        "SELECT child.relname, parent.relname FROM pg_constraint"
        " JOIN pg_class child ON child.oid = conrelid"
        " JOIN pg_class parent ON parent.oid = confrelid"
        " WHERE contype = 'f' AND conrelid <> confrelid"
    )
    for child, parent in keys:
        needs[child].add(parent)
    return list(TopologicalSorter(needs).static_order())


def _counted(connection: Connection) -> list[tuple[str, str]]:
    """Columns that Postgres numbers."""
    found = connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND is_identity = 'YES'"
    )
    return [(str(name), str(column)) for name, column in found]


def _let_go() -> None:
    """Void what processes of the old platform held: chunks are ready again, uncounted."""
    with transaction() as session:
        for name in _OF_PROCESSES:
            session.execute(text(f"DELETE FROM {name}"))
        running = text("SELECT id, job_id FROM chunks WHERE state = 'running' ORDER BY job_id, id")
        for chunk_id, job_id in session.execute(running).all():
            job = pipeline.lock_job(session, job_id)
            chunk = session.get_one(Chunk, chunk_id)
            chunk.state = State.READY
            chunk.attempt = max(chunk.attempt - 1, 0)
            chunk.lock_token = chunk.lock_owner = chunk.lock_expires_at = None
            session.flush()
            if job.state == State.RUNNING:
                pipeline.ring(session, chunk)
            said = {"stage": chunk.kind, "chunk": chunk.id, "reason": "restored from a backup"}
            emit(session, job.id, "chunk.returned", said)
            pipeline.settle(session, job)
