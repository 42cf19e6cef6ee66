"""The whole tree of commands: what holds for each, and what it may not need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from selftaught.cli import app
from tests.cli.conftest import Gateway
from tests.work.helpers import make_job

WITHOUT_JSON = {
    "migrate": "Alembic writes there what it does, and nothing else is to tell",
    "review": "a conversation with a person",
}
"""Commands that have no --json, and why."""


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """(name, command) of every command that does something."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield above + name, command


TREE = dict(commands(typer.main.get_command(app)))


def test_every_command_speaks_json_or_has_a_reason_not_to() -> None:
    speak = {name for name, one in TREE.items() if any("--json" in p.opts for p in one.params)}
    assert speak | WITHOUT_JSON.keys() == TREE.keys()
    assert not speak & WITHOUT_JSON.keys(), "a reason that holds no more"


@pytest.mark.parametrize("name", TREE)
def test_every_command_and_option_has_a_help_text(name: str) -> None:
    command = TREE[name]
    assert command.help and command.help.strip().endswith((".", "?"))
    silent = [p.name for p in command.params if not getattr(p, "help", None)]
    assert not silent


def test_who_finds_a_gateway_takes_its_url() -> None:
    for name, command in TREE.items():
        options = {option for p in command.params for option in p.opts}
        if "--url" in options:
            assert "--home" in options, name
    assert sum(any("--url" in p.opts for p in one.params) for one in TREE.values()) > 30


BLOCKED = """
import sys
for name in ("sqlalchemy", "celery", "fastapi", "torch", "yaml", "psutil", "redis", "psycopg",
             "alembic", "numpy", "transformers", "orjson", "aiohttp", "pydantic_settings"):
    sys.modules[name] = None
from selftaught.cli import app
app(sys.argv[1:], prog_name="selftaught")
"""


def blocked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that has only what the base package brings."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True, timeout=60
    )


def test_help_needs_no_package_of_the_services() -> None:
    done = blocked("--help")
    assert done.returncode == 0 and "datasets" in done.stdout, done.stderr


def test_the_api_needs_no_package_of_the_services(gateway: Gateway, tmp_path: Path) -> None:
    job_id = make_job()
    done = blocked("jobs", "list", "--url", gateway.url)
    assert done.returncode == 0 and done.stdout.startswith(f"{job_id}\tloop\trunning\t"), (
        done.stderr
    )
    rows = tmp_path / "rows.txt"
    rows.write_text("say 1\nsay 2\n")
    done = blocked("datasets", "upload", str(rows), "--json", "--url", gateway.url)
    assert json.loads(done.stdout)["rows"] == 2, done.stderr


def test_a_missing_package_is_told_with_the_extra_that_brings_it() -> None:
    done = blocked("projects", "list")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "`make setup` there, or pip install 'PATH/TO/selftaught[stack]'"
    ), done.stderr
    assert "Traceback" not in done.stderr
