"""Where files lie: this home, and the store if there is one. What the collector walks over."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selftaught.settings import get_settings
from selftaught.store import Store, store

_HALF = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")
_FETCHING = re.compile(r"\.fetching-(?P<name>.+)")
_MANIFEST = ".manifest.json"


@dataclass(frozen=True)
class Entry:
    """A file below artifacts/, or something below versions/ (a folder, with all in it).

    top: artifacts | versions. name: the path in the row that it belongs to, if it has one.
    partial: half written. age: seconds since it was last written.
    """

    top: str
    name: str
    partial: bool
    bytes: int
    age: float
    place: str


class Place(Protocol):
    """Somewhere that files lie."""

    def entries(self) -> Iterator[Entry]:
        """All there is, in no order."""

    def remove(self, entry: Entry) -> None:
        """Remove it; nothing if it has gone."""


def places() -> list[Place]:
    """This home, and the store that it shares."""
    found = store()
    return [Home()] if found is None else [Home(), Bucket(found)]


class Home:
    """This node's home. Ages are by the clock of its file system, whichever machine that is."""

    def __init__(self) -> None:
        settings = get_settings()
        self._tops = {"artifacts": settings.artifacts_dir, "versions": settings.versions_dir}

    def entries(self) -> Iterator[Entry]:
        """See Place."""
        now = self._now()
        root = self._tops["artifacts"].resolve()
        for folder, _, files in os.walk(root):
            for file in files:
                path = Path(folder, file)
                if (seen := _seen(path)) is None:
                    continue
                rest, partial = _stripped(path.relative_to(root).as_posix())
                yield Entry("artifacts", rest, partial, seen[0], now - seen[1], str(path))
        versions = self._tops["versions"]
        for path in versions.resolve().iterdir() if versions.exists() else ():
            match = _FETCHING.fullmatch(path.name)
            name = match["name"] if match else path.name
            size, written = _folder(path)
            yield Entry("versions", name, match is not None, size, now - written, str(path))

    def remove(self, entry: Entry) -> None:
        """See Place."""
        path = Path(entry.place)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def _now(self) -> float:
        """What the file system's clock says."""
        folder = self._tops["artifacts"]
        if not folder.exists():
            return time.time()
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime


class Bucket:
    """The store. Its own clock writes the times of its files; this machine's reads them."""

    def __init__(self, found: Store) -> None:
        self._store = found

    def entries(self) -> Iterator[Entry]:
        """See Place."""
        now = time.time()
        for top in ("artifacts", "versions"):
            for key, size, written in self._store.listed(top):
                rest = key.partition("/")[2]
                if top == "versions":  # each of its files on its own
                    name = rest.partition("/")[0].removesuffix(_MANIFEST)
                else:
                    name = rest.removesuffix(_MANIFEST)
                yield Entry(top, name, False, size, now - written, key)

    def remove(self, entry: Entry) -> None:
        """See Place."""
        self._store.remove_file(entry.place)


def _stripped(path: str) -> tuple[str, bool]:
    """The path of the artifact that a file belongs to, and whether the file is half written."""
    folder, slash, name = path.rpartition("/")
    match = _HALF.fullmatch(name) or _FETCHING.fullmatch(name)
    if match is not None:
        name = match["name"]
    if name.endswith(_MANIFEST):
        name = name.removesuffix(_MANIFEST) + ".jsonl"
    return folder + slash + name, match is not None


def _seen(path: Path) -> tuple[int, float] | None:
    """Bytes of a file, and when it was written or renamed; None if it has gone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_size, max(found.st_mtime, found.st_ctime)


def _folder(path: Path) -> tuple[int, float]:
    """Bytes of a folder, or file, with all in it, and when anything in it was last written."""
    size, written = _seen(path) or (0, 0.0)
    for folder, _, files in os.walk(path):
        for file in files:
            if seen := _seen(Path(folder, file)):
                size, written = size + seen[0], max(written, seen[1])
    return size, written
