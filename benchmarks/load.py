"""A load generator that costs next to nothing: some connections, each with one request at a time.

It writes requests that are bytes already and looks at status and length of an answer only, so that
one core sends some ten thousand a second: a client library would be slower than what it measures.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """What a run has found."""

    per_second: float
    p50_ms: float


class Failed(Exception):
    """An answer that is no 200, or a connection that ended."""


class _Connection(asyncio.Protocol):
    """Sends the next request when it has the answer to the one before, until it is told to stop."""

    def __init__(self, requests: Iterator[bytes], failed: asyncio.Future[None]) -> None:
        self._requests, self._failed = requests, failed
        self._got = b""
        self._sent = 0.0
        self.stopping = False
        self.closed: asyncio.Future[None] = failed.get_loop().create_future()
        self.seconds: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head)
        if b" 200 " not in head[:16] or length is None:
            return self._fail(self._got[:500].decode(errors="replace"))
        if len(body) < int(length[1]):
            return
        self._got = b""
        self.seconds.append(time.perf_counter() - self._sent)
        if self.stopping:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None)
        if not self.stopping:
            self._fail(f"the connection ended: {error}")

    def _fail(self, why: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(Failed(why))


def run(url: str, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    """Answers a second of so many connections over so many seconds. Raises Failed."""
    return asyncio.run(_run(url, requests, connections, seconds))


async def _run(url: str, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    loop, at = asyncio.get_running_loop(), urlsplit(url)
    host, port = at.hostname or "", at.port or 80
    failed: asyncio.Future[None] = loop.create_future()
    began = time.perf_counter()
    made = [
        (await loop.create_connection(lambda: _Connection(requests, failed), host, port))[1]
        for _ in range(connections)
    ]
    await asyncio.wait({failed}, timeout=seconds)
    for connection in made:  # what is under way is answered: nothing is left for who is next
        connection.stopping = True
    ending: set[asyncio.Future[Any]] = {failed}
    ending.add(asyncio.gather(*(connection.closed for connection in made)))
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        failed.result()
    found = [one for connection in made for one in connection.seconds]
    return Load(len(found) / (time.perf_counter() - began), 1000 * statistics.median(found))


def request(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """An HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
