"""Heads of requests: bounded in size and time, on a real socket; what is in order passes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import uvicorn

from selftaught import protocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers how many bytes the body had."""
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(app, port=0, http="selftaught.protocol:Http", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as found:
        yield found


def said(connection: socket.socket) -> bytes:
    """All that is answered until the other side hangs up."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass  # it hung up while we were still sending
    return found


def push(connection: socket.socket, data: bytes) -> bytes:
    """Send as much as the other side takes, then all that it says."""
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)
    return said(connection)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 20_000_000,
        b"GET /" + b"x" * 20_000_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3_000_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 20_000_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 20_000_000,
    ],
    ids=["header", "address", "headers", "trailer", "extension"],
)
def test_a_head_without_end_is_cut_off(port: int, head: bytes) -> None:
    with connected(port) as connection:
        answer = push(connection, head)
    assert not answer or answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_a_large_head_is_told_so(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
        for _ in range(2 + protocol.MAX_HEAD_BYTES // 1000):
            connection.sendall(b"x" * 1000)
        answer = said(connection)
    assert answer.startswith(b"HTTP/1.1 431 ") and b"head_too_large" in answer


def test_bodies_and_requests_on_one_connection_are_not_counted(port: int) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nX-Id: 1\r\nContent-Length: 3000000\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    with connected(port) as connection:
        answer = push(connection, (request + b"x" * 3_000_000) * 3 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4 and answer.count(b"3000000") == 3


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nX: "])
def test_a_head_that_does_not_come(
    port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    with connected(port) as connection:
        connection.sendall(begun)
        answer = said(connection)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"head_timeout" in answer
