"""Keys and projects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from selftaught.client._async.transport import AsyncTransport
from selftaught.client.answers import Json, given, url
from selftaught.contracts import KeyMade, KeyOut, ProjectOut, Scope


class AsyncKeys:
    """`client.keys`: those of the caller's own project."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self, name: str, scopes: Sequence[Scope], *, expires_in_days: float | None = None
    ) -> KeyMade:
        """A new key; this answer alone has its secret. Default: it is good for ever."""
        body = _new(name, scopes, expires_in_days)
        return await self._transport.post(KeyMade, "/v1/keys", body)

    def list(self, *, after: str | None = None, limit: int | None = None) -> AsyncIterator[KeyOut]:
        """All keys, revoked and expired ones too."""
        return self._transport.pages(KeyOut, "/v1/keys", after=after, limit=limit)

    async def rotate(self, key_id: str, grace_seconds: int | None = None) -> KeyMade:
        """A new secret; the present one is good for `grace_seconds` more (default: an hour)."""
        body = given(grace_seconds=grace_seconds)
        return await self._transport.post(KeyMade, url("v1", "keys", key_id, "rotate"), body)

    async def revoke(self, key_id: str) -> KeyOut:
        """It is good no more."""
        answer = await self._transport.call("DELETE", url("v1", "keys", key_id))
        return self._transport.read(KeyOut, answer)


class AsyncProjects:
    """`client.projects`: the operator's."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, project_id: str) -> ProjectOut:
        """A new project, by its name."""
        return await self._transport.post(ProjectOut, "/v1/projects", {"id": project_id})

    async def get(self, project_id: str) -> ProjectOut:
        """A project and its limits."""
        return await self._transport.get(ProjectOut, url("v1", "projects", project_id))

    def list(
        self, *, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[ProjectOut]:
        """Projects by name."""
        return self._transport.pages(ProjectOut, "/v1/projects", after=after, limit=limit)

    async def limit(self, project_id: str, **limits: int | None) -> ProjectOut:
        """Set limits (the fields of `Limits`); None ends one, others stay."""
        path = url("v1", "projects", project_id)
        answer = await self._transport.call("PATCH", path, json={"limits": limits})
        return self._transport.read(ProjectOut, answer)

    async def create_key(
        self,
        project_id: str,
        name: str,
        scopes: Sequence[Scope],
        *,
        expires_in_days: float | None = None,
    ) -> KeyMade:
        """A key to a project; this answer alone has its secret."""
        path = url("v1", "projects", project_id, "keys")
        return await self._transport.post(KeyMade, path, _new(name, scopes, expires_in_days))


def _new(name: str, scopes: Sequence[Scope], expires_in_days: float | None) -> Json:
    return given(name=name, scopes=list(scopes), expires_in_days=expires_in_days)
