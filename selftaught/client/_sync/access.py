# Made from ../_async by scripts/unasync.py (make unasync): change that one.
"""Keys and projects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selftaught.client._sync.transport import Transport
from selftaught.client.answers import Json, given, url
from selftaught.contracts import KeyMade, KeyOut, ProjectOut, Scope


class Keys:
    """`client.keys`: those of the caller's own project."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, name: str, scopes: Sequence[Scope], *, expires_in_days: float | None = None
    ) -> KeyMade:
        """A new key; this answer alone has its secret. Default: it is good for ever."""
        body = _new(name, scopes, expires_in_days)
        return self._transport.post(KeyMade, "/v1/keys", body)

    def list(self, *, after: str | None = None, limit: int | None = None) -> Iterator[KeyOut]:
        """All keys, revoked and expired ones too."""
        return self._transport.pages(KeyOut, "/v1/keys", after=after, limit=limit)

    def rotate(self, key_id: str, grace_seconds: int | None = None) -> KeyMade:
        """A new secret; the present one is good for `grace_seconds` more (default: an hour)."""
        body = given(grace_seconds=grace_seconds)
        return self._transport.post(KeyMade, url("v1", "keys", key_id, "rotate"), body)

    def revoke(self, key_id: str) -> KeyOut:
        """It is good no more."""
        answer = self._transport.call("DELETE", url("v1", "keys", key_id))
        return self._transport.read(KeyOut, answer)


class Projects:
    """`client.projects`: the operator's."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, project_id: str) -> ProjectOut:
        """A new project, by its name."""
        return self._transport.post(ProjectOut, "/v1/projects", {"id": project_id})

    def get(self, project_id: str) -> ProjectOut:
        """A project and its limits."""
        return self._transport.get(ProjectOut, url("v1", "projects", project_id))

    def list(self, *, after: str | None = None, limit: int | None = None) -> Iterator[ProjectOut]:
        """Projects by name."""
        return self._transport.pages(ProjectOut, "/v1/projects", after=after, limit=limit)

    def limit(self, project_id: str, **limits: int | None) -> ProjectOut:
        """Set limits (the fields of `Limits`); None ends one, others stay."""
        path = url("v1", "projects", project_id)
        answer = self._transport.call("PATCH", path, json={"limits": limits})
        return self._transport.read(ProjectOut, answer)

    def create_key(
        self,
        project_id: str,
        name: str,
        scopes: Sequence[Scope],
        *,
        expires_in_days: float | None = None,
    ) -> KeyMade:
        """A key to a project; this answer alone has its secret."""
        path = url("v1", "projects", project_id, "keys")
        return self._transport.post(KeyMade, path, _new(name, scopes, expires_in_days))


def _new(name: str, scopes: Sequence[Scope], expires_in_days: float | None) -> Json:
    return given(name=name, scopes=list(scopes), expires_in_days=expires_in_days)
