"""Fingerprints of requests: equal for equal ones, and taken while the body streams by."""

from __future__ import annotations

import hashlib

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

HEADER = "idempotency-key"
_MODEL = "selftaught-model"
"""A header that says what is asked: which model, where neither query nor body names one."""


class Fingerprint:
    """sha256 over method, path, query, content type, model and body.

    The boundary of a form is left out: clients draw a new one each time.
    """

    def __init__(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        media, options = parse_options_header(headers.get("content-type"))
        form = media == b"multipart/form-data"
        self._boundary = options.get(b"boundary", b"") if form else b""
        self._rest = b""  # not hashed yet: a boundary may have begun in it
        self._sha256 = hashlib.sha256()
        self.whole = False
        for part in (scope["method"].encode(), scope["path"].encode(), scope["query_string"]):
            self._sha256.update(len(part).to_bytes(8, "big") + part)
        self._sha256.update(media + b"\0")
        if (model := headers.get(_MODEL)) is not None:
            self._sha256.update(len(model).to_bytes(8, "big") + model.encode("latin-1"))

    def listening(self, receive: Receive) -> Receive:
        """`receive`, whose pieces of the body are taken into account as they come."""

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._feed(message.get("body", b""))
                self.whole = not message.get("more_body", False)
            return message

        return heard

    def hexdigest(self) -> str:
        """Raises RuntimeError unless the whole body was read."""
        if not self.whole:
            raise RuntimeError("the body was not read to its end")
        found = self._sha256.copy()
        found.update(self._rest)
        return found.hexdigest()

    def _feed(self, piece: bytes) -> None:
        if not self._boundary:
            self._sha256.update(piece)
            return
        *before, last = (self._rest + piece).split(self._boundary)
        for part in before:
            self._sha256.update(part)
        kept = min(len(last), len(self._boundary) - 1)
        self._sha256.update(last[: len(last) - kept])
        self._rest = last[len(last) - kept :]
