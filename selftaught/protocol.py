"""uvicorn's HTTP protocol, with an end to what a client may send before a request is there.

    uvicorn --http selftaught.protocol:Http

httptools sets no limit to a request's head (or to the trailers and chunk extensions of a body), and
uvicorn waits for it as long as the client likes. Here a head has HEAD_SECONDS and, as all that is
no body, MAX_HEAD_BYTES.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from selftaught.openapi import PROBLEM_TYPE

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30.0


class Http(HttpToolsProtocol):
    """One connection."""

    _silent = 0
    """Bytes since the last event that is one: a head complete, a piece of a body, its end."""
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._silent += len(data)
        super().data_received(data)
        if self._silent > MAX_HEAD_BYTES and not self.transport.is_closing():
            detail = f"the head is larger than {MAX_HEAD_BYTES} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", detail)

    def on_message_begin(self) -> None:
        if self._waiting is None:  # not the first on this connection
            self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._silent = 0
        super().on_message_complete()

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._late)

    def _came(self) -> None:
        self._silent = 0
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _late(self) -> None:
        if not self.transport.is_closing():
            detail = f"no request came within {HEAD_SECONDS:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "head_timeout", detail)

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        """Answer with a problem, unless an answer is under way, and hang up."""
        if self.cycle is None or self.cycle.response_complete:
            problem = {"type": "about:blank", "title": status.phrase, "status": int(status)}
            body = json.dumps(problem | {"code": code, "detail": detail, "errors": []}).encode()
            head = f"HTTP/1.1 {status:d} {status.phrase}\r\nContent-Type: {PROBLEM_TYPE}\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()
