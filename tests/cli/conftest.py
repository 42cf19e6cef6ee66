"""A gateway on a real port and on real Postgres, and the command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from services.api.main import create_app
from tests.conftest import Servers


class Gateway:
    """Serves in a thread, always at the same address; may go away and come back."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        config = uvicorn.Config(create_app(), log_level="critical", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def get(self, path: str) -> Any:
        """What the API itself answers."""
        return httpx.get(self.url + path).json()


class Command:
    """The command, asking one gateway."""

    def __init__(self, url: str, folder: Path) -> None:
        self._folder = folder
        self.env = {**os.environ, "SELFTAUGHT_URL": url, "TERM": "xterm", "COLUMNS": "100"}
        self.env.pop("DATABASE_URL", None)

    def start(self, *arguments: str | Path, **env: str) -> subprocess.Popen[str]:
        """Started, its output to be read. Ctrl-C reaches it, even where the tests run in a shell's
        background, which ignores it and hands that down."""
        return subprocess.Popen(
            [sys.executable, "-m", "selftaught.cli", *map(str, arguments)],
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            cwd=self._folder,
            env={**self.env, "PYTHONPATH": os.pathsep.join(sys.path), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *arguments: str | Path, code: int = 0, stdin: str = "", **env: str
    ) -> tuple[str, str]:
        """(stdout, stderr) of a call that ends with `code`."""
        with self.start(*arguments, **env) as process:
            out, err = process.communicate(stdin, timeout=60)
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        return out, err

    def json(self, *arguments: str | Path, **options: Any) -> Any:
        """What it prints with --json: JSON and nothing else."""
        return json.loads(self(*arguments, "--json", **options)[0])


@pytest.fixture
def gateway(database: Servers) -> Iterator[Gateway]:
    running = Gateway()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def run(gateway: Gateway, tmp_path: Path) -> Command:
    return Command(gateway.url, tmp_path)
