"""Lines of logs: what they say, and what nobody can make them say."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from selftaught import logs, telemetry, tenancy
from selftaught.settings import get_settings
from tests.traced import traced

KEY = "st_" + "k7" * 21 + "k"
log = logging.getLogger("test")


@contextmanager
def written(as_json: bool = True) -> Iterator[io.StringIO]:
    """What the root logger writes in the block."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Formatter("gateway", as_json))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def only(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_the_ids_of_what_is_done() -> None:
    with traced(), written() as stream, telemetry.span("GET", "server"):
        with tenancy.inside("red"), logs.bound(request_id="req_1", job_id="job_1", attempt=2):
            log.info("%s applied", "st_1.0")
        ids = telemetry.ids()
    line = only(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO", "logger": "test", "message": "st_1.0 applied", "service": "gateway",
        "request_id": "req_1", "job_id": "job_1", "attempt": "2", "project": "red",
        "trace_id": ids and ids[0], "span_id": ids and ids[1],
    }  # fmt: skip


def test_ids_end_with_their_block_and_are_not_anothers() -> None:
    async def request(name: str) -> None:
        with logs.bound(request_id=name):
            await asyncio.sleep(0)
            log.info("of %s", name)

    async def both() -> None:
        await asyncio.gather(request("one"), request("two"))

    with written() as stream:
        with logs.bound(request_id="former", job_id="job"):
            asyncio.run(both())
        log.info("of None")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == [f"of {one.get('request_id')}" for one in lines]
    assert not any("job_id" in line for line in lines)


@pytest.mark.parametrize("as_json", [True, False])
def test_nobody_begins_a_line(as_json: bool) -> None:
    forged = 'x\r\n2026-11-27 00:00:00,000 CRITICAL root pwned\x1b[2J\u2028{"level":"CRITICAL"}'
    with written(as_json) as stream:
        log.info("client sent %s", forged)
        try:
            raise ValueError(forged)
        except ValueError:
            log.exception("it failed")
    for line in stream.getvalue().splitlines():
        if as_json:
            assert json.loads(line)["logger"] == "test"
        else:
            assert line.startswith("  | ") or " test " in line
    assert "\x1b" not in stream.getvalue() and "\u2028" not in stream.getvalue()
    assert "ValueError" in stream.getvalue() and "in test_nobody_begins_a_line" in stream.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_half_a_pair_of_surrogates_can_be_written(as_json: bool) -> None:
    record = logging.LogRecord("test", logging.INFO, "file", 1, "%s", ("\ud800",), None)
    line = logs.Formatter("gateway", as_json).format(record)
    assert "ud800" in line.encode("ascii", "backslashreplace").decode()


def test_secrets_are_in_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_ENDPOINT_KEY_BIG", "key-of-big")
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://u:pass-of-postgres@127.0.0.1/d")
    get_settings.cache_clear()
    secrets = [
        f"Authorization: Bearer {KEY}",
        f"key {KEY}, refused",
        "bearer eyJhbGciOi.abc.def",
        "whsec_c2VjcmV0c2VjcmV0",
        "sk-proj-0123456789abcdef",
        "POST https://user:hunter2@example.com/v1",
        "GET https://example.com/hook?token=hunter2&x=1 200",
        "refused key-of-big",
        "no password: pass-of-postgres",
    ]
    with written() as stream:
        for secret in secrets:
            log.info("%s", secret)
            try:
                raise RuntimeError(secret)
            except RuntimeError:
                log.exception("failed")
        log.info("st_019ac5a1c3d08f2a5b7c9d0e.0 applied, no secret")
    get_settings.cache_clear()
    told = stream.getvalue()
    for part in (KEY, "eyJ", "c2VjcmV0", "0123456789", "hunter2", "key-of-big", "pass-of-postgres"):
        assert part not in told, part
    assert told.count("[redacted]") >= 2 * len(secrets)
    assert "st_019ac5a1c3d08f2a5b7c9d0e.0 applied" in told and "https://example.com/hook?" in told


def test_no_line_is_long_and_no_text_keeps_the_process_busy() -> None:
    with written() as stream:
        for text in ("x" * 10**6, "?" * 10**5, "://" * 10**5, "bearer " * 10**5, "\n" * 10**5):
            log.info("%s", text)
            try:
                raise ValueError(text)
            except ValueError:
                log.exception("failed")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    for line in lines:
        assert len(json.loads(line)["message"]) <= logs.MOST
        assert len(json.loads(line).get("exception", "")) <= 2 * logs.MOST + 10
    assert json.loads(lines[1])["exception"].startswith("Traceback")


def test_a_line_whose_arguments_do_not_fit_is_told_without_them() -> None:
    record = logging.LogRecord("test", logging.INFO, "file", 1, "%d rows", ("secret words",), None)
    line = json.loads(logs.Formatter("gateway", True).format(record))
    assert line["message"] == "%d rows (its arguments do not fit)"


def test_a_process_and_its_child_log_as_json() -> None:
    """Threads and the end of the process, too, and with the parent's ids."""
    code = """
import logging, threading, warnings
from selftaught import logs
logs.setup()
logging.getLogger("uvicorn.access").info('%s - "%s"', "127.0.0.1", "GET /")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
raise SystemError("the end")
"""
    with logs.bound(job_id="job_1"), tenancy.inside("red"):
        env = {"SELFTAUGHT_LOG_FORMAT": "json", "SELFTAUGHT_ROLE": "child", **logs.environment()}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1 and done.stdout == b""
    assert [line["logger"] for line in lines] == [
        "uvicorn.access", "py.warnings", "selftaught", "selftaught"
    ]  # fmt: skip
    assert all(line["service"] == "child" for line in lines)
    assert "ZeroDivisionError" in lines[2]["exception"]
    assert "SystemError: the end" in lines[3]["exception"]
    assert (lines[0]["job_id"], lines[0]["project"]) == ("job_1", "red")
