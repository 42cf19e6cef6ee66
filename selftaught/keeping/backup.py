"""A backup: a folder with every row of one moment, and every file that those rows name.

    TARGET/manifest.json       schema revision, our version, each table's columns, rows and sha256
    TARGET/tables/<name>.gz    rows as COPY TO writes them
    TARGET/files.jsonl         each file's path, sha256 and bytes
    TARGET/artifacts/..        as below the home
    TARGET/versions/..

Rows are of one snapshot (REPEATABLE READ), so they agree with each other while the platform works
on. Files never change once a row names them, so they are copied after the snapshot and still are
what it names, as long as nobody removes them: :data:`locks.REMOVING` keeps collectors away. Each is
checked against its row's sha256. TARGET is there when all of it is, under a rename.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
from psycopg import sql
from sqlalchemy import make_url

import selftaught
from selftaught.artifacts import hash_folder, sync_folder
from selftaught.keeping.locks import REMOVING, session_lock
from selftaught.settings import get_settings
from selftaught.store import StoreError, store

FORMAT = 1
_PIECE = 1 << 20
_TOLD = 20  # bad files that an error lists


class BackupError(Exception):
    """A backup cannot be made, or is not one; the message is fit for an operator."""


@dataclass(frozen=True)
class Table:
    """A table of a backup."""

    columns: list[str]
    rows: int
    sha256: str  # of what COPY wrote, before it was compressed


@dataclass(frozen=True)
class Manifest:
    """What a backup is. files_sha256: of files.jsonl."""

    format: int
    version: str
    revision: str
    created_at: str
    tables: dict[str, Table]
    files: int
    bytes: int
    files_sha256: str


def backup(target: Path) -> Manifest:
    """Write a backup to `target`, which must not be there. Raises BackupError, psycopg.Error."""
    if target.exists():
        raise BackupError(f"{target} is there already")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a backup that was killed
    partial.mkdir(parents=True)
    partial.chmod(0o700)  # and so nobody reaches what is in it
    for folder in ("tables", "artifacts", "versions"):
        (partial / folder).mkdir()
    try:
        with session_lock(REMOVING, wait=True):
            rows = _write_rows(partial)
            files, size, sha256 = _copy_files(partial)
        (partial / "wanted.jsonl").unlink()
        manifest = Manifest(FORMAT, selftaught.__version__, *rows, files, size, sha256)
        with private(partial / "manifest.json") as file:
            file.write(json.dumps(asdict(manifest), indent=1).encode())
        sync_folder(partial)
        partial.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def private(path: Path) -> BinaryIO:
    """A new file that nobody else may read: backups hold secrets."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def connect() -> psycopg.Connection[tuple[Any, ...]]:
    """A plain connection that sees all rows of every project, or refuses."""
    url = make_url(get_settings().database_url).set(drivername="postgresql")
    connection = psycopg.connect(
        url.render_as_string(hide_password=False), application_name="selftaught-keeping"
    )
    connection.execute("SET row_security = off")
    connection.commit()
    return connection


def quoted(names: Iterable[str]) -> sql.Composed:
    """Names of tables or columns, with commas between them."""
    return sql.SQL(", ").join(map(sql.Identifier, names))


def table_names(connection: psycopg.Connection[tuple[Any, ...]]) -> list[str]:
    """Every table but Alembic's own."""
    found = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        " AND tablename <> 'alembic_version' ORDER BY tablename"
    )
    return [name for (name,) in found]


def _write_rows(folder: Path) -> tuple[str, str, dict[str, Table]]:
    """Revision, time and tables of one snapshot; and wanted.jsonl, the files that it names."""
    with connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        found = connection.execute("SELECT version_num, now()::text FROM alembic_version")
        revision, now = found.fetchone() or _no_schema()
        tables = {
            name: _write_table(connection, name, folder / "tables" / f"{name}.gz")
            for name in table_names(connection)
        }
        with private(folder / "wanted.jsonl") as file:
            for wanted in _wanted(connection):
                file.write(json.dumps(wanted).encode() + b"\n")
    return revision, now, tables


def _no_schema() -> tuple[str, str]:
    raise BackupError("this database has no schema; there is nothing to back up")


def _write_table(connection: psycopg.Connection[tuple[Any, ...]], name: str, path: Path) -> Table:
    columns = [
        column
        for (column,) in connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            (f'"{name}"',),
        )
    ]
    copy = sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(name), quoted(columns))
    digest, rows = hashlib.sha256(), 0
    with (
        private(path) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=3, mtime=0) as packed,
        connection.cursor().copy(copy) as stream,
    ):
        for data in stream:
            packed.write(data)
            digest.update(data)
            rows += bytes(data).count(b"\n")  # newlines in values are escaped
    return Table(columns, rows, digest.hexdigest())


def _wanted(connection: psycopg.Connection[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Files and folders that rows name, with their sha256 (of a probe: none)."""
    queries = (
        ("artifacts", "SELECT path, sha256 FROM artifacts ORDER BY path"),
        ("versions", "SELECT path, sha256 FROM model_versions WHERE path <> '' ORDER BY path"),
        ("versions", "SELECT DISTINCT lineage #>> '{engine,probe}', '' FROM model_versions"),
    )
    for top, query in queries:
        with connection.cursor(name=f"files_{top}") as cursor:  # not all of them in memory
            for path, sha256 in cursor.execute(query):
                if path is not None and not Path(path).is_absolute():  # else a base model
                    yield {"top": top, "path": path, "sha256": sha256}


def _copy_files(folder: Path) -> tuple[int, int, str]:
    """Copy and check what wanted.jsonl names, and list it: number, bytes, hash of the list."""
    bad: list[str] = []
    number = size = 0
    digest = hashlib.sha256()
    with (folder / "wanted.jsonl").open("rb") as wanted, private(folder / "files.jsonl") as listed:
        for line in wanted:
            try:
                copied = _copy(folder, **json.loads(line))
            except (BackupError, StoreError, FileNotFoundError) as error:
                bad.append(str(error))
                continue
            for path, sha256, length in copied:
                entry = {"path": path, "sha256": sha256, "bytes": length}
                row = json.dumps(entry).encode() + b"\n"
                listed.write(row)
                digest.update(row)
                number, size = number + 1, size + length
        listed.flush()
        os.fsync(listed.fileno())
    if bad:
        more = f" and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
        raise BackupError("rows name files that are not good: " + "; ".join(bad[:_TOLD]) + more)
    return number, size, digest.hexdigest()


def _copy(folder: Path, top: str, path: str, sha256: str) -> list[tuple[str, str, int]]:
    """One file or folder into the backup; what was copied: path, sha256, bytes."""
    settings = get_settings()
    root = (settings.artifacts_dir if top == "artifacts" else settings.versions_dir).resolve()
    source, target = root / path, folder / top / path
    found = store()
    if source.exists():
        names = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        for name in names:
            copy_file(name, target / name.relative_to(source) if name != source else target)
    elif found is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        found.get(f"{top}/{path}", target)
        for one in (target, *target.rglob("*")):
            if one.is_file():
                one.chmod(0o600)
    else:
        raise BackupError(f"{top}/{path} is missing")
    files = [target] if target.is_file() else sorted(p for p in target.rglob("*") if p.is_file())
    copied = [
        (one.relative_to(folder).as_posix(), file_sha256(one), one.stat().st_size) for one in files
    ]
    has = hash_folder(target) if target.is_dir() else copied[0][1]
    if sha256 and has != sha256:
        raise BackupError(f"{top}/{path} does not have its sha256")
    return copied


def copy_file(source: Path, target: Path) -> None:
    """A private copy, flushed to disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, private(target) as write:
        shutil.copyfileobj(read, write, _PIECE)
        write.flush()
        os.fsync(write.fileno())


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(source: Path) -> Manifest:
    """What the backup in a folder is. Raises BackupError."""
    try:
        raw = json.loads((source / "manifest.json").read_bytes())
        tables = {name: Table(**table) for name, table in raw.pop("tables").items()}
        manifest = Manifest(tables=tables, **raw)
    except FileNotFoundError as error:
        raise BackupError(f"{source} is not a backup, or not a whole one: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupError(f"{source}/manifest.json cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{source} has format {manifest.format}; this version reads {FORMAT}")
    return manifest


Say = Callable[[str], None]
