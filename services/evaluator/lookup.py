"""Which version a reference means now, and which canary is beside it: one statement over a
connection that the event loop holds.

A call of /judge waits for it, so it must cost little: a tenth of what a thread and a transaction of
SQLAlchemy do. Whatever is not a plain hit is left to selftaught.aliases, which knows every error.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from anyio import to_thread
from sqlalchemy import make_url

from selftaught import aliases, tenancy
from selftaught.database import transaction
from selftaught.http import DatabaseLost

SECONDS = 10.0
"""After this long without an answer the connection is given up."""


Ref = tuple[str, str | None]
"""Whose, and which: a project, and `name`, `name:alias` or `name:number`."""
_LOOK: LiteralString = """
    SELECT a.version_id, a.model || ':' || a.alias, c.id, c.version_id, c.mode, c.share
    FROM aliases a
    LEFT JOIN canaries c ON c.project_id = a.project_id AND c.model = a.model
        AND c.alias = a.alias AND c.ended_at IS NULL
    WHERE a.project_id = %s AND a.alias = %s
"""


@dataclass(frozen=True)
class Trial:
    """A living canary; mode: share | shadow."""

    id: str
    version_id: str
    mode: str
    share: float


@dataclass(frozen=True)
class Named:
    """What a reference means. `alias`: as name:alias; None for an exact version."""

    version_id: str
    alias: str | None = None
    trial: Trial | None = None


class Lookup:
    """Asks Postgres at `url` (SQLAlchemy's)."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: psycopg.AsyncConnection | None = None
        self._opening = asyncio.Lock()
        self._exact: dict[Ref, Named] = {}

    async def named(self, asked: Ref) -> Named:
        """As aliases.resolve_id, and the alias's canary. Raises AliasError, DatabaseLost."""
        if asked in self._exact:
            return self._exact[asked]
        project, ref = asked
        found = None
        model, colon, pointer = (ref or "").partition(":")
        if ref is None:
            rows = await self._rows(_LOOK, project, "latest")
            found = rows[0] if len(rows) == 1 else None
        elif "\0" not in ref and not pointer.isdigit():
            query = _LOOK + "AND a.model = %s"
            rows = await self._rows(query, project, pointer if colon else "latest", model)
            found = rows[0] if rows else None
        if found is None:
            found = Named(await to_thread.run_sync(_resolve, project, ref))
            if pointer.isdigit():
                self._exact[asked] = found  # a number never means another version
        return found

    def forget(self, version_id: str | None) -> None:
        """A version was deleted, or any may have been: its number means nothing any more."""
        for asked, named in list(self._exact.items()):
            if version_id in (None, named.version_id):
                del self._exact[asked]

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            await self._connection.close()

    async def _rows(self, query: LiteralString, *values: str) -> list[Named]:
        """What _LOOK finds. A connection that has been lost meanwhile is opened anew, once."""
        for last in (False, True):
            connection = None
            try:
                async with asyncio.timeout(SECONDS):
                    connection = await self._open()
                    cursor = await connection.execute(query, values)
                    return [_named(*row) for row in await cursor.fetchall()]
            except (psycopg.OperationalError, TimeoutError) as error:
                if connection is not None:
                    with suppress(psycopg.Error):
                        await connection.close()
                if last:
                    raise DatabaseLost(str(error)) from error
        raise AssertionError

    async def _open(self) -> psycopg.AsyncConnection:
        async with self._opening:
            if self._connection is None or self._connection.closed:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, application_name="selftaught-judge"
                )
            return self._connection


def _named(version_id: str, alias: str, canary: str | None, *trial: Any) -> Named:
    return Named(version_id, alias, None if canary is None else Trial(canary, *trial))


def _resolve(project: str, ref: str | None) -> str:
    with tenancy.inside(project), transaction() as session:
        return aliases.resolve_id(session, ref)
