"""What a running stack tells others: ``<home>/stack.json``, and the lock that says it is alive.

The lock is the truth about "running": the kernel drops it when the supervisor dies, however it
dies, while the file stays behind. The file holds the database password, so only its owner reads it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import IO, NotRequired, TypedDict

from selftaught.stack.spec import AlreadyRunning

PROBE_SECONDS = 0.5
"""Whoever only asks whether a stack runs holds the lock for much less than this."""


class ProcessRecord(TypedDict):
    """One process in stack.json."""

    name: str
    state: str
    pid: int | None
    started: float | None
    """Its create time, so that nobody signals another process that got the same pid."""
    restarts: int
    tier: int
    signal: int
    grace: float
    url: str | None
    log: str


class SupervisorRecord(TypedDict):
    pid: int
    started: float


class StackRecord(TypedDict):
    """stack.json."""

    id: str
    state: str
    """starting, ready, stopping, stopped or failed."""
    error: str | None
    supervisor: SupervisorRecord
    urls: dict[str, str]
    processes: list[ProcessRecord]
    running: NotRequired[bool]
    """Added by :func:`read`: whether the supervisor is alive now."""


def record_path(home: Path) -> Path:
    return home / "stack.json"


def write(home: Path, record: StackRecord) -> None:
    """Replace stack.json at once: a reader sees the old one or the new one."""
    path = record_path(home)
    temporary = path.with_name(f".stack.json.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(record, file, indent=1)
    temporary.replace(path)


def read(home: Path) -> StackRecord | None:
    """The last record written under `home`; None if no stack was ever started there."""
    try:
        record: StackRecord = json.loads(record_path(home).read_text())
    except FileNotFoundError:
        return None
    record["running"] = is_locked(home)
    return record


def take_lock(home: Path) -> IO[str]:
    """Hold `home` until this process dies; raise :class:`AlreadyRunning` if another does."""
    file = (home / "stack.lock").open("a")
    deadline = time.monotonic() + PROBE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise AlreadyRunning(f"a stack already runs in {home}") from None
            time.sleep(0.02)
        else:
            return file


def is_locked(home: Path) -> bool:
    """Whether a supervisor is alive in `home`."""
    try:
        file = (home / "stack.lock").open("r")
    except FileNotFoundError:
        return False
    with file:
        try:
            # Shared: two people asking for the status at once do not see each other.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def port_is_free(port: int) -> bool:
    """Whether 127.0.0.1:`port` can be listened on now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(taken: Callable[[int], bool] = lambda port: False) -> int:
    """A free port below the range that kernels hand to outgoing connections.

    From inside that range a client that reconnects to a dead server can be given the server's own
    port, connect to itself, and so keep the restarted server from listening.
    """
    random = Random(os.urandom(8))
    while True:
        port = random.randrange(15000, 30000)
        if not taken(port) and port_is_free(port):
            return port


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, for an error message."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 16384))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
