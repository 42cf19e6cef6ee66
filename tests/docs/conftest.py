"""The stack that pages run on, with a model that their examples name."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftaught.stack.handle import Stack
from tests.docs.blocks import ROOT

LIBRARY = ROOT / "tests" / "docs" / "library.sh"


def checkout(folder: Path) -> Path:
    """A folder that looks like the repository, where what commands write does no harm."""
    folder.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name not in (".git", ".venv", ".selftaught", "models", "secrets", "build"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(home: Path, port: int) -> dict[str, str]:
    """What a reader's shell has: the commands of the environment, the home, the gateway."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SELFTAUGHT_", "DATABASE_", "REDIS_", "PYTEST_"))
    }
    return {
        **env,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SELFTAUGHT_HOME": str(home),
        "GATEWAY": f"http://127.0.0.1:{port}",
        "SELFTAUGHT_URL": f"http://127.0.0.1:{port}",
        "COLUMNS": "140",
        "NO_COLOR": "1",
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with the model `judge`: three versions by a small job (library.sh)."""
    from tests.docs.session import Session

    home = tmp_path_factory.mktemp("docs") / "home"
    env = {"SELFTAUGHT_WEBHOOK_NETWORKS": '["127.0.0.0/8"]', "SELFTAUGHT_VERDICT_LOG": "hashes"}
    with Stack(home, generator_workers=1, env=env) as stack:
        port = int(stack.gateway_url.rpartition(":")[2])
        folder = checkout(tmp_path_factory.mktemp("library") / "repo")
        with Session(folder, environment(home, port), seconds=600) as session:
            session.bash(LIBRARY.read_text())
        yield stack
