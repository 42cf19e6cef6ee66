"""The receiver of docs/webhooks.md takes what is genuine, once, and nothing else."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from selftaught import webhooks
from selftaught.contracts.webhooks import TYPES
from selftaught.settings import get_settings
from selftaught.stack.services import project_root
from selftaught.stack.state import free_port
from tests.conftest import Servers
from tests.webhooks.helpers import add, deliver_all, deliveries, tell
from tests.webhooks.receiver import wait_until

DOCS = (project_root() / "docs" / "webhooks.md").read_text()


@contextmanager
def documented(folder: Path, port: int, secret: str) -> Iterator[Path]:
    """The example, run as it stands; gives the file that it prints to."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    program, log = folder / "receiver.py", folder / "log"
    program.write_text(example)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(program), str(port)],
            env={**os.environ, "WEBHOOK_SECRET": secret},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )

    def listens() -> bool:
        assert process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, "the example listens")
        yield log
    finally:
        process.kill()
        process.wait()


def test_the_documented_receiver(
    database: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTAUGHT_WEBHOOK_NETWORKS", '["127.0.0.0/8"]')
    get_settings.cache_clear()
    port = free_port()
    hook = add(f"http://127.0.0.1:{port}/")
    with documented(tmp_path, port, hook.secret) as log:
        tell("job.succeeded", job="job_1")
        deliver_all()
        (row,) = deliveries()
        assert (row.state, row.status) == ("delivered", 204)

        def post(timestamp: int, signature: str, body: str = row.payload) -> int:
            headers = {
                "webhook-id": row.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature,
            }
            return httpx.post(
                f"http://127.0.0.1:{port}/", content=body, headers=headers
            ).status_code

        now = int(time.time())
        good = webhooks.signature([webhooks.new_secret(), hook.secret], row.id, now, row.payload)
        assert post(now, good) == 204  # again: taken, but not told twice
        assert post(now, good, row.payload + " ") == 401
        assert post(now, "v1," + "A" * 44) == 401
        assert post(now, good.replace("v1,", "v2,")) == 401
        assert post(now, "") == 401
        old = now - 301
        assert post(old, webhooks.signature([hook.secret], row.id, old, row.payload)) == 401
        assert log.read_text() == "job.succeeded {'job': 'job_1'}\n"


def test_every_type_is_documented() -> None:
    assert not [name for name in TYPES if f"`{name}`" not in DOCS]
