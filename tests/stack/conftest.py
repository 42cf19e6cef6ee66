"""Stacks for tests: stand-in processes, and a look at which processes are alive."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from selftaught.stack.guard import is_gone
from selftaught.stack.spec import ProcessSpec, Tier

STANDIN = Path(__file__).with_name("standin.py")
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def no_outside_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that the caller's environment names are not for these tests."""
    for name in ("DATABASE_URL", "REDIS_URL", "SELFTAUGHT_HOME"):
        monkeypatch.delenv(name, raising=False)


def standin(
    name: str,
    *arguments: str,
    tier: Tier = Tier.WORKER,
    grace: float = 10.0,
) -> ProcessSpec:
    """A process that does what `arguments` say (see standin.py)."""
    command = (sys.executable, str(STANDIN), *arguments)
    return ProcessSpec(name=name, command=command, tier=tier, stop_seconds=grace, ready_text="up\n")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll `condition`, generously."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Every one of `processes` is dead (a zombie counts: its parent may never reap it)."""
    wait_until(
        lambda: all(is_gone(process) for process in processes),
        f"{[process for process in processes if not is_gone(process)]} ended",
    )
