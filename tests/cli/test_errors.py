"""What went wrong, in words, with what to do about it; and how commands exit."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from selftaught.cli import app
from selftaught.cli.errors import Group, explain


def call(*arguments: str, code: int = 1, **env: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env=env)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    return done.stderr


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of something that gives everybody this answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def problem(status: int, code: str, more: str = "") -> bytes:
    body = f'{{"code": "{code}", "detail": "so it is"{more}}}'.encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
    return head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body


def test_where_no_gateway_is(tmp_path: Path) -> None:
    said = call("jobs", "list", "--home", str(tmp_path))
    assert said == (
        f"error: no stack runs in {tmp_path}: start one with `selftaught up`, or say where a "
        "gateway is with --url or SELFTAUGHT_URL\n"
    )
    said = call("jobs", "list", SELFTAUGHT_URL="http://127.0.0.1:1")
    assert said.startswith("error: no gateway at http://127.0.0.1:1 (")
    assert said.endswith("start one with `selftaught up`, or set SELFTAUGHT_URL to where it is\n")
    assert "write http://.." in call("jobs", "list", "--url", "localhost:8080")
    assert call("jobs", "list", "--url", "http://[nonsense")


def test_what_answers_is_no_gateway() -> None:
    page = b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\nconnection: close\r\n\r\n<p/>"
    with answering(page) as url:
        said = call("jobs", "list", "--url", url)
    assert "404" in said and said.endswith("is this the address of a selftaught gateway?\n")
    page = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n<p/>"
    with answering(page) as url:
        assert "gateway of this version?" in call("jobs", "list", "--url", url)
    with answering(b"SSH-2.0-OpenSSH\r\n") as url:
        said = call("jobs", "list", "--url", url)
    assert said.startswith("error: ") and "Traceback" not in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(401, "unauthorized"), "set SELFTAUGHT_API_KEY to a key of this gateway"),
        (problem(403, "missing_scope"), "SELFTAUGHT_API_KEY is to be a key that has it"),
        (problem(429, "quota_exceeded"), "`selftaught usage` shows"),
        (problem(500, "internal", ', "request_id": "req_7"'), "at request id req_7"),
    ],
)
def test_what_to_do_about_a_refusal(answer: bytes, said: str) -> None:
    with answering(answer) as url:
        told = call("jobs", "list", "--url", url)
    assert told.startswith("error: so it is (") and said in told


def test_errors_of_this_program_show_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = typer.Typer(cls=Group)

    @broken.command()
    def crash() -> None:
        raise KeyError("x")

    @broken.command()
    def stop() -> None:
        raise KeyboardInterrupt

    done = CliRunner().invoke(broken, ["crash"])
    assert done.exit_code == 1 and done.stderr.startswith(
        "error: something that should not happen: KeyError: 'x'\nwith SELFTAUGHT_TRACEBACK=1"
    )
    done = CliRunner().invoke(broken, ["stop"])
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")
    monkeypatch.setenv("SELFTAUGHT_TRACEBACK", "1")
    assert isinstance(CliRunner().invoke(broken, ["crash"]).exception, KeyError)


def test_a_wrong_setting_of_the_environment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selftaught.settings import get_settings

    monkeypatch.setenv("SELFTAUGHT_GC_SECONDS", "soon")
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/x")
    get_settings.cache_clear()
    said = call("keys", "list", "--home", str(tmp_path))
    get_settings.cache_clear()
    assert "SELFTAUGHT_GC_SECONDS" in said.upper() and "Traceback" not in said


def test_a_package_that_is_ours_and_missing_is_a_bug() -> None:
    text, _ = explain(ModuleNotFoundError("no", name="selftaught.nothing"))
    assert "should not happen" in text
