"""The artifact store: a bucket that mirrors what several nodes' homes share.

A home is then only a cache. What is finished in one is put here before a row names it; a home that
lacks it gets it from here (selftaught.artifacts). A key is a path below the home, of a file or a
folder; `<key>.manifest.json`, written last, names the files and their sha256. So a folder is there
whole or not at all, and what was put is never written again.

Credentials and endpoint come from AWS's own variables (docs/artifacts.md).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import orjson

from selftaught import disk
from selftaught.settings import get_settings


class StoreError(Exception):
    """An artifact cannot be had, or kept; the message is fit for an operator."""

    code: str
    title: str


class StoreUnavailable(StoreError):
    """The store does not answer, or refuses; another try may help."""

    code = "artifact_store_unavailable"
    title = "The artifact store is away"


class ArtifactMissing(StoreError):
    """The store answers, and has no such thing."""

    code = "artifact_missing"
    title = "An artifact is missing from the store"


class ArtifactDamaged(StoreError):
    """What the store has is not what was put there."""

    code = "artifact_damaged"
    title = "An artifact in the store is damaged"


class Store:
    """One bucket and prefix. Its methods block; threads may share it."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        # Listings that others change meanwhile must not be remembered.
        self._fs, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        self._root = root.rstrip("/")

    def put(self, local: Path, key: str) -> None:
        """Put a file, or a folder with all in it, unless it is there already.

        Raises StoreUnavailable.
        """
        files = [local] if local.is_file() else sorted(p for p in local.rglob("*") if p.is_file())
        names = [file.relative_to(local).as_posix() if file != local else "" for file in files]
        with _errors(key, StoreUnavailable):
            if self._fs.exists(self._manifest(key)):
                return
            for file, name in zip(files, names, strict=True):
                self._fs.put_file(str(file), self._path(key, name))
            hashes = {name: _sha256(file) for file, name in zip(files, names, strict=True)}
            self._fs.pipe_file(self._manifest(key), orjson.dumps({"sha256": hashes}))

    def get(self, key: str, local: Path) -> None:
        """Write what `key` is, a file or a folder, to `local`, flushed to disk.

        Raises StoreUnavailable, ArtifactMissing, ArtifactDamaged, maybe after some files.
        """
        with _errors(self._manifest(key), ArtifactMissing):
            manifest = orjson.loads(self._fs.cat_file(self._manifest(key)))
        for name, sha256 in manifest["sha256"].items():
            file, remote = local / name, self._path(key, name)
            if not file.resolve().is_relative_to(local.resolve()):
                raise ArtifactDamaged(f"{self._manifest(key)} names {name!r}")
            file.parent.mkdir(parents=True, exist_ok=True)
            with _errors(remote, ArtifactMissing):
                self._fs.get_file(remote, str(file))
            if _sha256(file, sync=True) != sha256:
                raise ArtifactDamaged(f"{remote} does not have its sha256")

    def remove(self, key: str) -> None:
        """Remove a file or folder, its manifest first; nothing if it is not there.

        Raises StoreUnavailable.
        """
        for path in (self._manifest(key), self._path(key, "")):
            with _errors(key, StoreUnavailable), suppress(FileNotFoundError):
                self._fs.rm(path, recursive=True)

    def listed(self, key: str) -> Iterator[tuple[str, int, float]]:
        """Every object below a folder: key, bytes, when it was written (seconds since the epoch).

        Listed folder by folder. Raises StoreUnavailable.
        """
        with _errors(key, StoreUnavailable):
            for _, _, files in self._fs.walk(self._path(key, ""), detail=True):
                for found in files.values():
                    name = found["name"].removeprefix(self._root).lstrip("/")
                    yield name, int(found["size"]), found["LastModified"].timestamp()

    def remove_file(self, key: str) -> None:
        """Remove one object; nothing if it is not there. Raises StoreUnavailable."""
        with _errors(key, StoreUnavailable), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key, ""))

    def _path(self, key: str, name: str) -> str:
        return "/".join(filter(None, (self._root, key, name)))

    def _manifest(self, key: str) -> str:
        return self._path(f"{key}.manifest.json", "")


def store() -> Store | None:
    """This process's store; None: the home is all there is."""
    url = get_settings().artifacts_url
    return _open(url) if url else None


@lru_cache(maxsize=1)
def _open(url: str) -> Store:
    return Store(url)


@contextmanager
def _errors(key: str, missing: type[StoreError]) -> Iterator[None]:
    """What S3 and the network raise, as StoreErrors; a thing that is not there as `missing`."""
    from aiohttp import ClientError as ConnectionBroke
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except orjson.JSONDecodeError as error:
        raise ArtifactDamaged(f"{key} is not JSON") from error
    except FileNotFoundError as error:
        raise missing(f"{key}: {error}") from error
    except (OSError, BotoCoreError, ClientError, ConnectionBroke) as error:
        if disk.is_full(error):  # here, not there
            raise
        raise StoreUnavailable(f"{key}: {type(error).__name__}: {error}") from error


def _sha256(file: Path, sync: bool = False) -> str:
    with file.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()
