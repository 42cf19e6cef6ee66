# Made from ../_async by scripts/unasync.py (make unasync): change that one.
"""Models: immutable versions, the aliases that point at them, and canaries."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from selftaught.client._sync.jobs import Job
from selftaught.client._sync.transport import Transport
from selftaught.client.answers import given, url
from selftaught.client.files import DamagedDownload, child, name_base, whole
from selftaught.contracts import (
    AliasOut,
    CanaryOut,
    CanaryReport,
    ModelOut,
    PromotionOut,
    VersionFile,
    VersionOut,
)


class Models:
    """`client.models`"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def register(self, base_model: str, **fields: Any) -> Job:
        """Make a base model a version as it is, to be evaluated or to judge: a job.

        `fields`: those of `RegistrationIn`: name, template, inference, max_tokens, ...
        """
        return self._transport.post(Job, "/v1/models", {"base_model": base_model, **fields})

    def list(self, *, after: str | None = None, limit: int | None = None) -> Iterator[ModelOut]:
        """Models by name; those behind the name `after`, and at most `limit` of them."""
        return self._transport.pages(ModelOut, "/v1/models", "name", after, limit)

    def versions(
        self, model: str, *, after: int | None = None, limit: int | None = None
    ) -> Iterator[VersionOut]:
        """Versions of a model, newest first; those before number `after`."""
        path = url("v1", "models", model, "versions")
        return self._transport.pages(VersionOut, path, "number", after, limit)

    def version(self, model: str, number: int) -> VersionOut:
        """One version, with all that it came from."""
        return self._transport.get(VersionOut, _version(model, number))

    def files(self, model: str, number: int) -> Iterator[VersionFile]:
        """The files of a trained version: an adapter in PEFT's format, or whole weights."""
        return self._transport.pages(VersionFile, _version(model, number) + "/files", "name")

    def download(
        self, model: str, number: int, folder: str | Path, *, base: str | None = None
    ) -> Path:
        """The files of a trained version, in `folder`, which must not exist.

        They are compared with the version's sha256. `base`: what its `adapter_config.json` shall
        name as the base model: a folder or a hub's name of yours, in place of the trainer's folder.
        Raises ApiError, FileExistsError, DamagedDownload (not the version's files), OSError.
        """
        folder = Path(folder)
        version = self.version(model, number)
        part = folder.with_name(f".{folder.name}.part")
        if folder.exists():
            raise FileExistsError(f"{folder} exists already")
        part.mkdir(parents=True)
        try:
            hashes = {}
            for one in self.files(model, number):
                path = self._transport.save(one.url, child(part, one.name))
                with path.open("rb") as file:
                    hashes[one.name] = hashlib.file_digest(file, "sha256").hexdigest()
            if whole(hashes) != version.sha256:
                raise DamagedDownload(f"what came is not {version.ref}: its sha256 is another one")
            if base is not None:
                name_base(part, base)
            return part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def delete_version(self, model: str, number: int) -> None:
        """Its weights and everything about it, unless something needs it."""
        self._transport.call("DELETE", _version(model, number))

    def aliases(self, model: str) -> Iterator[AliasOut]:
        """Every alias of a model, with its history."""
        return self._transport.pages(AliasOut, url("v1", "models", model, "aliases"), "alias")

    def alias(self, model: str, alias: str = "latest") -> AliasOut:
        """Where an alias points, and where it has pointed."""
        return self._transport.get(AliasOut, _alias(model, alias))

    def set_alias(
        self,
        model: str,
        alias: str,
        version: int,
        *,
        reason: str | None = None,
        prepare: bool | None = None,
        revision: int | None = None,
    ) -> AliasOut:
        """Point an alias at a version, by number; `latest` moves only if the gate lets it.

        `revision`: move it only if its revision is still this one; 0: only if there is none yet.
        `prepare=False`: do not have the version opened first.
        """
        headers = {} if revision is None else {"If-Match": f'"{revision}"'}
        if revision == 0:
            headers = {"If-None-Match": "*"}
        body = given(version=version, reason=reason, prepare=prepare)
        answer = self._transport.call("PUT", _alias(model, alias), json=body, headers=headers)
        return self._transport.read(AliasOut, answer)

    def rollback(
        self, model: str, alias: str = "latest", *, revision: int | None = None
    ) -> AliasOut:
        """Point an alias back at the version before its present one.

        `revision`: only if its revision is still this one.
        """
        headers = {} if revision is None else {"If-Match": f'"{revision}"'}
        path = _alias(model, alias) + "/rollback"
        answer = self._transport.call("POST", path, headers=headers)
        return self._transport.read(AliasOut, answer)

    def promote(
        self,
        model: str,
        number: int,
        *,
        alias: str | None = None,
        force: bool | None = None,
        reason: str | None = None,
        prepare: bool | None = None,
    ) -> PromotionOut:
        """Move an alias (default: `latest`) to a version, if the gate lets it.

        ApiError 409 `gate_refused` says which rules failed. `force` moves it all the same, for a
        `reason`, by a key with scope `promote`.
        """
        body = given(alias=alias, force=force, reason=reason, prepare=prepare)
        path = _version(model, number) + "/promote"
        return self._transport.post(PromotionOut, path, body)

    def promotions(
        self,
        model: str,
        number: int | None = None,
        *,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[PromotionOut]:
        """What the gate decided about a version, or about all of a model, newest first."""
        of = url("v1", "models", model) if number is None else _version(model, number)
        path = of + "/promotions"
        return self._transport.pages(PromotionOut, path, after=after, limit=limit)


class Canaries:
    """`client.canaries`"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(
        self,
        model: str,
        alias: str,
        version: int,
        share: float,
        *,
        mode: Literal["shadow", "share"] | None = None,
        reason: str | None = None,
        prepare: bool | None = None,
    ) -> CanaryOut:
        """Try a version on a share (above 0, up to 1) of the questions that come by an alias.

        `mode`: `shadow` (default) judges the same pairs unseen; by `share` it answers them.
        """
        body = given(version=version, share=share, mode=mode, reason=reason, prepare=prepare)
        answer = self._transport.call("PUT", _alias(model, alias) + "/canary", json=body)
        return self._transport.read(CanaryOut, answer)

    def get(self, model: str, alias: str = "latest") -> CanaryOut:
        """The alias's canary, as long as it lives."""
        return self._transport.get(CanaryOut, _alias(model, alias) + "/canary")

    def end(self, model: str, alias: str = "latest") -> CanaryOut:
        """End the alias's canary; its report stays."""
        answer = self._transport.call("DELETE", _alias(model, alias) + "/canary")
        return self._transport.read(CanaryOut, answer)

    def report(self, canary_id: str) -> CanaryReport:
        """How a canary, living or ended, compares with the version that its alias named."""
        return self._transport.get(CanaryReport, url("v1", "canaries", canary_id, "report"))

    def list(
        self,
        *,
        model: str | None = None,
        alias: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[CanaryOut]:
        """Canaries, living and ended, newest first."""
        return self._transport.pages(
            CanaryOut,
            "/v1/canaries",
            after=after,
            limit=limit,
            params={"model": model, "alias": alias},
        )


def _version(model: str, number: int) -> str:
    return url("v1", "models", model, "versions", number)


def _alias(model: str, alias: str) -> str:
    return url("v1", "models", model, "aliases", alias)
