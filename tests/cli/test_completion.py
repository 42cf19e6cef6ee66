"""What a Tab offers: what the gateway knows, and nothing when it is away."""

from __future__ import annotations

import socket
import time

from tests.api.helpers import add_versions
from tests.cli.conftest import Command, Gateway
from tests.work.helpers import make_job


def offered(run: Command, line: str, **env: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split(" ")
    asked = {
        "_SELFTAUGHT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    out, err = run(**asked, **env)
    assert err == ""
    return out.split()


def test_names_that_the_gateway_knows(gateway: Gateway, run: Command) -> None:
    job_id = make_job()
    add_versions("mine", [0])
    assert offered(run, "selftaught jobs watch ") == [job_id]
    assert offered(run, "selftaught models versions mi") == ["mine"]
    assert offered(run, "selftaught jobs create --recipe quick") == ["quickstart"]
    assert "watch" in offered(run, "selftaught jobs ")


def test_a_gateway_that_is_away_or_silent_is_not_in_the_way(run: Command) -> None:
    assert offered(run, "selftaught jobs watch ", SELFTAUGHT_URL="http://127.0.0.1:1") == []
    assert offered(run, "selftaught jobs watch ", SELFTAUGHT_URL="nonsense") == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert offered(run, "selftaught jobs watch ", SELFTAUGHT_URL=url) == []
        assert time.monotonic() - began < 30


def test_there_is_a_script_for_shells(run: Command) -> None:
    out, _ = run("--show-completion", "bash")
    assert "_SELFTAUGHT_COMPLETE" in out
