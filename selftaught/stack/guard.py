"""Nothing outlives its supervisor, not even after ``kill -9``, on Linux and macOS alike.

The supervisor holds the only write end of a pipe whose read end is this process's standard input,
and names there every process it starts. When the supervisor dies, however it dies, the kernel
closes the pipe; the guard then stops what is still named, with all descendants, and whatever else
carries the stack's mark in its environment. ``PR_SET_PDEATHSIG`` would be shorter, but is Linux
only and does not reach grandchildren.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

import psutil

MARK = "SELFTAUGHT_STACK"
"""Environment variable that every process of a stack carries, with the stack's id."""

ORPHAN_SECONDS = 3.0
"""What an orphan gets to stop by itself; Postgres loses nothing if it is killed after that."""


@dataclass(frozen=True)
class Entry:
    """A process to stop: pid and create time name it for certain."""

    pid: int
    started: float
    tier: int
    signal: int
    grace: float

    def process(self) -> psutil.Process | None:
        """The living process, or None: gone, a zombie, or another that got the same pid."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > 1.0 or is_gone(process):
                return None
        except psutil.NoSuchProcess:
            return None
        return process


def is_gone(process: psutil.Process) -> bool:
    """Dead, reaped or not: an orphan's zombie stays for ever under an init that does not reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill(process: psutil.Process) -> None:
    """SIGKILL; the process may be gone already."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


def kill_group(pid: int) -> None:
    """SIGKILL what is left of the process group that `pid` led."""
    # macOS answers EPERM, not ESRCH, for a group of nothing but zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def stop_all(entries: Iterable[Entry], limit: float | None = None) -> None:
    """Stop `entries` and their descendants, tier by tier; return when they are gone.

    Each is asked with its own signal and killed after its grace (or `limit` seconds if shorter).
    """
    remaining = list(entries)
    for tier in sorted({entry.tier for entry in remaining}, reverse=True):
        stop_tier([entry for entry in remaining if entry.tier == tier], limit)


def stop_tier(entries: list[Entry], limit: float | None) -> None:
    """Stop the processes of one tier side by side."""
    deadlines: list[tuple[psutil.Process, float]] = []
    family: list[psutil.Process] = []
    for entry in entries:
        process = entry.process()
        if process is None:
            continue
        try:
            # Looked up while the parent lives: Postgres puts each backend in its own group.
            family.extend(process.children(recursive=True))
            process.send_signal(entry.signal)
        except psutil.NoSuchProcess:
            continue
        grace = entry.grace if limit is None else min(entry.grace, limit)
        deadlines.append((process, time.monotonic() + grace))
    while any(not is_gone(process) and time.monotonic() < end for process, end in deadlines):
        time.sleep(0.05)
    for process, _ in deadlines:
        kill_group(process.pid)
    for process in family:
        kill(process)
    while any(not is_gone(process) for process, _ in deadlines):
        time.sleep(0.05)


def sweep(mark: str) -> None:
    """Kill every process that carries the stack's mark: children that left their group."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                kill(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
            continue  # another user's process, or gone: not ours


class Guard:
    """The supervisor's end: start the guard, tell it what runs, replace it if it dies."""

    def __init__(self, mark: str, log: int) -> None:
        self._mark = mark
        self._log = log
        self._entries: dict[int, Entry] = {}
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        # Its own session: a Ctrl-C or a kill of the supervisor's group must not take the guard.
        return subprocess.Popen(
            [sys.executable, "-m", "selftaught.stack.guard", self._mark],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )

    def add(self, entry: Entry) -> None:
        self._entries[entry.pid] = entry
        self._tell({"add": asdict(entry)})

    def remove(self, pid: int) -> None:
        self._entries.pop(pid, None)
        self._tell({"remove": pid})

    def check(self) -> None:
        """Replace the guard if it died, and tell the new one everything."""
        if self._process.poll() is not None:
            self._process = self._start()
            for entry in self._entries.values():
                self._tell({"add": asdict(entry)})

    def close(self) -> None:
        """Let the guard stop what is left, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _tell(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        # If it just died: check() starts another and tells it everything.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()


def main() -> None:
    """Read names until the supervisor is gone, then stop them."""
    mark = sys.argv[1]
    entries: dict[int, Entry] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "add" in message:
            entry = Entry(**message["add"])
            entries[entry.pid] = entry
        else:
            entries.pop(message["remove"], None)
    stop_all(entries.values(), ORPHAN_SECONDS)
    sweep(mark)


if __name__ == "__main__":
    main()
