# Made from ../_async by scripts/unasync.py (make unasync): change that one.
"""Requests and their tries; knows nothing of what is asked."""

from __future__ import annotations

import itertools
import json
import random
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, PrivateAttr

from selftaught import __version__
from selftaught.client.answers import Json, body_of, given, parse, passing, refusal
from selftaught.client.errors import ApiError
from selftaught.contracts import Page
from selftaught.sse import Reader

PAUSE = 0.25
"""Seconds before a call is sent again for the first time; then twice as many, and so on."""
LONGEST_PAUSE = 60.0
"""Who is told to wait for longer is given the refusal instead."""
PAGE = 100
"""Items of a page, the most that the gateway gives."""

T = TypeVar("T", bound=BaseModel)


class _Page(Page[dict[str, Any]]):
    """With what some pages name as the next `after`, as it may be none of their items."""

    next: str | None = None


class Transport:
    """Sends requests to one gateway, again if need be, and reads the answers."""

    def __init__(self, base_url: str, key: str | None, timeout: float, retries: int) -> None:
        headers = {"User-Agent": f"selftaught-python/{__version__}"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._retries = retries
        self.timeout = timeout
        self.http = httpx.Client(base_url=base_url, timeout=timeout, headers=headers)

    def get(self, model: type[T], path: str, params: Mapping[str, Any] | None = None) -> T:
        """GET a thing."""
        return self.read(model, self.call("GET", path, params=params))

    def post(self, model: type[T], path: str, body: Mapping[str, Any] | None = None) -> T:
        """POST a body of JSON; `model` is what is answered."""
        return self.read(model, self.call("POST", path, json=body))

    def read(self, model: type[T], body: Any) -> T:
        """An answer; handles get what they make their own calls with. Raises ApiError."""
        found = parse(model, body)
        if isinstance(found, Handle):
            found._transport = self
        return found

    def call(self, method: str, path: str, **options: Any) -> Json:
        """Any request, with the options of `send`: the JSON object that is answered."""
        return body_of(self.send(method, path, **options))

    def pages(
        self,
        model: type[T],
        path: str,
        cursor: str = "id",
        after: str | int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Iterator[T]:
        """Items of all pages, each page when it is needed; `cursor` names the field to go on by."""
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            query = {**(params or {}), "limit": size, "after": after}
            page = parse(_Page, self.call("GET", path, params=query))
            for item in page.data:
                yield self.read(model, item)
            if not page.has_more or not (page.data or page.next):
                return
            after = page.next or page.data[-1][cursor]
            left = None if left is None else left - len(page.data)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """An answer that is read as it comes. Options of `send`. Raises ApiError."""
        response = self.send(method, path, stream=True, **options)
        try:
            if not response.is_success:
                response.read()
                raise refusal(response)
            yield response
        finally:
            response.close()

    def listen(self, method: str, path: str, **options: Any) -> Generator[tuple[str, Json]]:
        """Events of a stream (name, data) as they come. Raises ApiError, also for an `error`."""
        with self.stream(method, path, **options) as response:
            for event in told(response):
                if event is None:
                    continue
                if event[0] == "error":
                    raise ApiError(event[1]["status"], event[1])
                yield event

    def save(self, path: str, target: Path, **options: Any) -> Path:
        """GET a file, written to `target`: it is there only once it is whole."""
        part = target.with_name(target.name + ".part")
        try:
            with self.stream("GET", path, **options) as response:
                with part.open("wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
            return part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stream: bool = False,
        repeatable: bool = True,
        body: Callable[[], dict[str, Any]] = dict,
    ) -> httpx.Response:
        """The answer, good or bad, after as many tries as it takes; TransportError without one.

        `body`: makes httpx's options for the body, anew for each try; if it can do so only once the
        call is not `repeatable`. Every POST has a key, so that what it makes is made once.
        """
        if not path.startswith("/"):  # httpx would send the key to whatever host it names
            raise ValueError(f"{path!r} is no path of this gateway")
        once = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        retries = self._retries if repeatable else 0
        for tried in itertools.count():
            request = self.http.build_request(
                method,
                path,
                params=given(**(params or {})),
                json=json,
                headers={**once, **(headers or {})},
                timeout=self.timeout if timeout is None else timeout,
                **body(),
            )
            pause = PAUSE * 2**tried
            try:
                response = self.http.send(request, stream=stream)
            except httpx.TransportError as error:
                if tried >= retries or not _may_be_sent_again(request, error):
                    raise
            else:
                wanted = passing(response)
                if tried >= retries or wanted is None or wanted > LONGEST_PAUSE:
                    return response
                response.close()
                pause = max(pause, wanted)
            time.sleep(pause * random.uniform(1.0, 1.25))
        raise AssertionError("unreachable")


class Handle(BaseModel):
    """An answer that can make calls of its own."""

    _transport: Transport = PrivateAttr()


def told(response: httpx.Response) -> Generator[tuple[str, Json] | None]:
    """Events of a stream (name, data); None for a line that ends none: a sign of life."""
    reader = Reader()
    for line in lines(response):
        found = reader.line(line.decode().removesuffix("\r"))
        yield None if found is None else (found[0], json.loads(found[1]))


def lines(response: httpx.Response) -> Iterator[bytes]:
    """Lines that end with a newline byte, and with nothing else; a last one without is left out."""
    rest = b""
    for piece in response.iter_bytes():
        *found, rest = (rest + piece).split(b"\n")
        for line in found:
            yield line


def _may_be_sent_again(request: httpx.Request, error: httpx.TransportError) -> bool:
    """Not what took too long, and not what would be refused if it had been carried out: what a
    lost DELETE deleted is not found again, and what a lost PUT moved has another revision."""
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout | httpx.UnsupportedProtocol):
        return False
    changes_once = request.method == "DELETE" or "If-Match" in request.headers
    return not changes_once or isinstance(error, httpx.ConnectError)
