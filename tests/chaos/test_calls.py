"""How the workload takes what the gateway answers: made again, refused, or told as untyped."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chaos.workload import Refused, Workload
from selftaught.contracts import JobOut
from selftaught.stack.handle import Stack

EXAMPLE = cast(dict[str, Any], JobOut.model_config["json_schema_extra"])["examples"][0]
ENDED = json.dumps({**EXAMPLE, "state": "succeeded"})
SCRIPT: list[tuple[int, bytes]] = []
"""Answers to come; after them 200."""


class Scripted(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = SCRIPT.pop(0) if SCRIPT else (200, ENDED.encode())
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workload]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack = SimpleNamespace(gateway_url=f"http://127.0.0.1:{server.server_address[1]}")
    yield Workload(cast(Stack, stack), tmp_path)
    server.shutdown()
    server.server_close()
    SCRIPT.clear()


def problem(code: str | None) -> bytes:
    return json.dumps({"title": "t", "code": code, "detail": "d"}).encode()


def test_a_problem_that_passes_is_asked_again(work: Workload) -> None:
    SCRIPT[:] = [(503, problem("database_unavailable"))]
    assert work.wait("job_1").state == "succeeded"
    assert work.calls.failed == {"503 database_unavailable": 1} and work.calls.made["watch"] == 2
    assert work.calls.untyped == []


@pytest.mark.parametrize(
    "answer", [(500, problem("internal_error")), (503, problem(None)), (500, b"Internal Error")]
)
def test_a_failure_that_nobody_typed_is_told(work: Workload, answer: tuple[int, bytes]) -> None:
    SCRIPT[:] = [answer]
    assert work.wait("job_1").state == "succeeded"
    (told,) = work.calls.untyped
    assert told.startswith("watch: ")


def test_a_refusal_ends_the_work(work: Workload) -> None:
    SCRIPT[:] = [(404, problem("not_found"))]
    with pytest.raises(Refused, match="not_found"):
        work.wait("job_1")


def test_an_answer_that_nobody_can_read_is_not_asked_for_for_ever(work: Workload) -> None:
    SCRIPT[:] = [(200, b'{"state": "succeeded"}')]
    with pytest.raises(Refused, match="unexpected_answer"):
        work.wait("job_1")
