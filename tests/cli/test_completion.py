"""What a Tab offers: what the gateway knows, and nothing when it is away."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from selftaught import Client
from selftaught.cli import app
from tests.api.helpers import add_versions
from tests.cli.conftest import Gateway
from tests.work.helpers import make_job


def offered(line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    asked = {
        "_SELFTAUGHT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = CliRunner().invoke(app, [], env=asked)
    assert done.stderr == "" and done.exit_code == 0
    return done.stdout.split()


def test_names_that_the_gateway_knows(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_URL", gateway.url)
    job_id = make_job()
    add_versions("mine", [0])
    assert offered("selftaught jobs watch ") == [job_id]
    assert offered("selftaught models versions mi") == ["mine"]
    assert offered("selftaught jobs create --recipe quick") == ["quickstart"]
    assert "watch" in offered("selftaught jobs ")
    monkeypatch.delenv("SELFTAUGHT_URL")
    assert offered(f"selftaught jobs watch --url {gateway.url} ") == [job_id]


def test_a_gateway_that_is_away_or_silent_is_not_in_the_way() -> None:
    assert offered("selftaught jobs watch --url http://127.0.0.1:1 ") == []
    assert offered("selftaught jobs watch --url nonsense ") == []
    assert offered("selftaught jobs watch --home /nowhere ") == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert offered(f"selftaught jobs watch --url {url} ") == []


def test_there_is_a_script_for_shells() -> None:
    script = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="selftaught")
    assert "_SELFTAUGHT_COMPLETE" in script.stdout


def test_what_others_call_a_thing_runs_nowhere(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zsh evaluates what it is offered."""
    monkeypatch.setenv("SELFTAUGHT_URL", gateway.url)
    rows = [{"instruction": "i"}]
    with Client(gateway.url) as client:
        made = client.datasets.upload(rows, name='Größe 1 \\$(touch x) \\`y\\` \\"; z [/b] \x1b[2J')
    asked = {
        "_SELFTAUGHT_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "selftaught datasets show ",
    }
    done = CliRunner().invoke(app, [], env=asked)
    assert done.exit_code == 0 and made.id in done.stdout and "Größe 1" in done.stdout
    told = done.stdout.partition(":((")[2].rpartition("))'")[0].strip()
    assert not set(told) & set("\\$`;()[]'\x1b"), told
    assert told.count('"') == 4
