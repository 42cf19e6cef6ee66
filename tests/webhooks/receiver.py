"""A receiver of webhooks on loopback: it answers every POST alike and keeps what came."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Got = tuple[str, dict[str, str], bytes]  # path, headers (names in lower case), body


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: bytes | str = "HTTP/1.1 204 No Content\r\n\r\n") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer if isinstance(answer, bytes) else answer.encode()
        self.got: list[Got] = []
        self.first: Callable[[], object] = lambda: None  # before each answer

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((self.path, headers, body))
        self.server.first()
        self.wfile.write(self.server.answer)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    if tls is not None:
        receiver.socket = tls.wrap_socket(receiver.socket, server_side=True)
    receiver.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that left
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


def wait_until(said: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.02)
