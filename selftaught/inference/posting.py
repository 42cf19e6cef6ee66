"""POSTs of JSON to a model server, hundreds at a time.

By aiohttp, whose connections cost the same however many there are. httpx (0.28) spends 13 ms of CPU
on each request with 256 in flight, thirty times as much, and keeps a small model waiting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from selftaught import telemetry
from selftaught.inference import chunks
from selftaught.inference.protocol import Hear
from selftaught.sse import MEDIA_TYPE


class NoAnswer(Exception):
    """The server could not be reached, or the connection ended before it had answered."""


@dataclass(frozen=True)
class Reply:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    key: str | None = field(default=None, repr=False)

    @property
    def success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The beginning of the body, to be told: in errors and logs, so without the key, which some
        servers repeat when they refuse it."""
        told = self.body[:2000].decode(errors="replace")
        return (told.replace(self.key, "[key]") if self.key else told)[:500]

    def json(self) -> Any:
        """Raises ValueError."""
        return orjson.loads(self.body)


@dataclass(frozen=True)
class Poster:
    """Connections that are kept; see :func:`poster`."""

    session: aiohttp.ClientSession
    key: str | None = field(default=None, repr=False)

    async def post(self, url: str, body: dict[str, Any], hear: Hear | None = None) -> Reply:
        """Redirects are not followed. The current span goes along. Raises NoAnswer.

        With `hear` the server is asked to stream, and `hear` told the text so far; the reply is as
        it would be without. A server that does not stream answers as ever.
        """
        if hear is not None:
            body = {**body, **chunks.ASK}
        try:
            async with self.session.post(
                url, data=orjson.dumps(body), allow_redirects=False, headers=telemetry.headers()
            ) as response:
                if hear is not None and response.content_type == MEDIA_TYPE:
                    whole = orjson.dumps(await chunks.assemble(response.content, hear))
                else:
                    whole = await response.read()
                return Reply(response.status, response.headers, whole, self.key)
        except (aiohttp.ClientError, OSError, chunks.Broken) as error:  # OSError: time-outs are
            raise NoAnswer(f"{type(error).__name__}: {error}") from error


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for this address (HTTPS_PROXY, NO_PROXY and so on).

    Looked up once for a session: aiohttp's own `trust_env` asks two threads for every request.
    """
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxy = getproxies().get(parts.scheme)
    # aiohttp would speak HTTP to a SOCKS port, too.
    return proxy if proxy and urlsplit(proxy).scheme in ("http", "https") else None


@asynccontextmanager
async def poster(
    connections: int,
    timeout: float | None = None,
    key: str | None = None,
    proxy: str | None = None,
) -> AsyncIterator[Poster]:
    """At most `connections` at once; `timeout` of a request in seconds; `key` of a bearer."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections,
            keepalive_timeout=4,  # less than the 5 s of uvicorn, or it may close as we send
        ),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers=headers,
        proxy=proxy,
    ) as session:
        yield Poster(session, key)
