"""Files that outlive a stage: written once, hashed while written, published by one rename.

A file is there before its row; a crash between the two leaves a file without a row, never a row
without its file. Paths carry the lease token, so two holders of one chunk never share a file.

With a store (SELFTAUGHT_ARTIFACTS_URL) this home is one node's, and a cache: what is finished is
shared before its row is written, and what is read is fetched if it is not here yet.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from selftaught import stopping
from selftaught.settings import get_settings
from selftaught.store import Store, StoreUnavailable, store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A published file: what its row needs."""

    kind: str
    path: str
    sha256: str
    bytes: int
    rows: int


class Writer:
    """Writes one JSONL artifact; `publish` makes it visible, leaving the block without it aborts.

    `path` is relative to the artifacts folder, built by the server and never from user input.
    """

    def __init__(self, kind: str, path: str) -> None:
        self._kind, self._path = kind, path
        self._final = _place(path)
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._temp = self._final.with_name(f".{self._final.name}.{os.getpid()}.tmp")
        self._hash = hashlib.sha256()
        self._bytes = self._rows = 0

    def __enter__(self) -> Writer:
        self._file = self._temp.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()  # writes what is left: on a full disk it fails again
        finally:
            self._temp.unlink(missing_ok=True)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row as a line of JSON (UTF-8, ended by a newline)."""
        self.write_all([row])

    def write_all(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, a line each. For many small ones faster than :meth:`write`."""
        stopping.check()
        lines = b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows])
        self._file.write(lines)
        self._hash.update(lines)
        self._bytes += len(lines)
        self._rows += len(rows)

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def rows(self) -> int:
        return self._rows

    def publish(self) -> Published:
        """fsync, write the manifest, rename into place, share. Raises StoreUnavailable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        done = Published(self._kind, self._path, self._hash.hexdigest(), self._bytes, self._rows)
        try:
            _write_manifest(self._final, done)
            os.replace(self._temp, self._final)
            sync_folder(self._final.parent)
        except OSError:
            _remove_here(self._final)
            raise
        share(self._final)
        return done


def publish_rows(kind: str, path: str, rows: Iterable[dict[str, Any]]) -> Published:
    """Write and publish all rows."""
    with Writer(kind, path) as writer:
        for row in rows:
            writer.write(row)
        return writer.publish()


def resolve(path: str) -> Path:
    """The absolute path of a relative artifact path; refuses one that leaves the folder.

    What is not in this home yet is fetched first: raises StoreError.
    """
    return fetched(_place(path))


def discard(done: Published) -> None:
    """Remove a published file, and its manifest, that no row will ever name."""
    remove(_place(done.path))


def share(local: Path) -> None:
    """Put a finished file or folder of this home where other nodes find it, if there are any.

    Call it before its row is written. Raises StoreUnavailable; the local one is then removed, since
    no row will ever name it.
    """
    found = store()
    if found is None:
        return
    try:
        found.put(local, _key(local))
    except BaseException:
        _remove_here(local)
        raise


def fetched(local: Path) -> Path:
    """A file or folder of this home, from the store if it is not here yet: whole or not at all.

    Of several processes of a node that want the same one fetches it, and the others wait.
    Raises StoreError.
    """
    found = store()
    if found is None or local.exists():
        return local
    local.parent.mkdir(parents=True, exist_ok=True)
    unfinished = local.with_name(f".fetching-{local.name}")
    folder = os.open(local.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # ends with the process, however it ends
        if not local.exists():
            _remove_here(unfinished)  # of a process that was killed
            _fetch(found, local, unfinished)
            os.fsync(folder)
    finally:
        os.close(folder)
    return local


def _fetch(found: Store, local: Path, unfinished: Path) -> None:
    try:
        found.get(_key(local), unfinished)
        for folder in (p for p in (unfinished, *unfinished.rglob("*")) if p.is_dir()):
            sync_folder(folder)
        unfinished.rename(local)
    except BaseException:
        _remove_here(unfinished)
        raise


def remove(local: Path) -> None:
    """Remove a file or folder that no row will ever name, here and in the store.

    A store that is away keeps it: nobody will ask for it.
    """
    _remove_here(local)
    found = store()
    if found is not None:
        try:
            found.remove(_key(local))
        except StoreUnavailable as error:
            log.warning("left in the store: %s", error)


def hash_folder(folder: Path) -> str:
    """sha256 over the sorted file names and contents of a folder (not its subfolders)."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.name}\0{digest}\n".encode())
    return total.hexdigest()


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk: a rename is lasting only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place(path: str) -> Path:
    """Where an artifact lies, or will."""
    root = get_settings().artifacts_dir.resolve()
    full = (root / path).resolve()
    if not full.is_relative_to(root):
        raise ValueError(f"artifact path leaves its folder: {path}")
    return full


def _key(local: Path) -> str:
    """Its name in the store: where it lies below the home."""
    settings = get_settings()
    for folder in (settings.artifacts_dir, settings.versions_dir):  # which may be links
        if local.is_relative_to(folder.resolve()):
            return f"{folder.name}/{local.relative_to(folder.resolve()).as_posix()}"
    raise ValueError(f"nothing that nodes share: {local}")


def _remove_here(local: Path) -> None:
    if local.is_dir():
        shutil.rmtree(local)
    else:
        local.unlink(missing_ok=True)
        local.with_suffix(".manifest.json").unlink(missing_ok=True)


def _write_manifest(final: Path, done: Published) -> None:
    path = final.with_suffix(".manifest.json")
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temp.open("wb") as file:
            file.write(json.dumps(done.__dict__, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)
