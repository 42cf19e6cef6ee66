"""One stack per home, the command line, outside servers, and whose processes are touched."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from typer.testing import CliRunner

from selftaught.cli import app
from selftaught.stack import state
from selftaught.stack.guard import is_gone
from selftaught.stack.handle import Stack, stop_home
from selftaught.stack.services import project_root
from selftaught.stack.spec import AlreadyRunning, StackConfig, StackError
from tests.stack.conftest import standin


def run(*arguments: str) -> tuple[int, str]:
    """The ``selftaught`` command in this process."""
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_a_stack_that_starts_has_no_gateway_yet(tmp_path: Path) -> None:
    record: state.StackRecord = {
        "id": "1",
        "state": "starting",
        "error": None,
        "supervisor": {"pid": os.getpid(), "started": 0.0},
        "urls": {"redis": "redis://127.0.0.1:1/0"},
        "processes": [],
    }
    state.write(tmp_path, record)
    assert Stack(tmp_path).redis_url == "redis://127.0.0.1:1/0"
    with pytest.raises(StackError, match="no gateway, or not yet"):
        _ = Stack(tmp_path).gateway_url


def test_a_second_start_in_the_same_home_is_refused(tmp_path: Path) -> None:
    with Stack(tmp_path, only={"redis"}) as stack:
        pid = stack.process("redis").pid
        with pytest.raises(AlreadyRunning):
            Stack(tmp_path, only={"redis"}).start()
        code, output = run("up", "--home", str(tmp_path))
        assert code == 1
        assert "already runs" in output
        assert stack.process("redis").pid == pid
        assert stack.record["state"] == "ready"


def test_status_and_down(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert run("status", "--home", home)[0] == 1
    assert run("down", "--home", home)[0] == 0
    stack = Stack(tmp_path, only={"redis"}, tied=False).start()
    try:
        code, output = run("status", "--home", home)
        assert code == 0
        assert "redis" in output and "running" in output
        code, output = run("status", "--home", home, "--json")
        assert code == 0
        record = json.loads(output)
        assert record["running"]
        assert record["processes"][0]["pid"] == stack.process("redis").pid
        assert run("down", "--home", home) == (0, "stopped\n")
        code, output = run("down", "--home", home)
        assert code == 0
        assert "no stack runs" in output
        assert run("status", "--home", home)[0] == 1
    finally:
        stack.stop()


@pytest.fixture
def innocent() -> Iterator[psutil.Process]:
    """A process that has nothing to do with any stack."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def test_down_touches_no_process_that_only_has_the_recorded_pid(
    tmp_path: Path,
    innocent: psutil.Process,
) -> None:
    with Stack(tmp_path, only={"redis"}) as stack:
        record = stack.record
    record["state"] = "ready"
    record["supervisor"] = {"pid": innocent.pid, "started": innocent.create_time() - 3600}
    record["processes"][0]["pid"] = innocent.pid
    record["processes"][0]["started"] = innocent.create_time() - 3600
    state.write(tmp_path, record)
    assert stop_home(tmp_path) is False
    with state.take_lock(tmp_path), pytest.raises(StackError, match="not the supervisor"):
        stop_home(tmp_path)
    with Stack(tmp_path, only={"redis"}):  # clears leftovers, and this is none
        assert not is_gone(innocent)


def test_servers_named_by_the_environment_are_used_and_not_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Stack(tmp_path / "outside", only={"postgres", "redis"}) as outside:
        monkeypatch.setenv("DATABASE_URL", outside.database_url)
        monkeypatch.setenv("REDIS_URL", outside.redis_url)
        target = tmp_path / "answer"
        worker = standin("worker", "query-on-stop", str(target))
        with Stack(tmp_path / "inside", processes=[worker]) as inside:
            assert [process["name"] for process in inside.record["processes"]] == ["worker"]
            assert inside.database_url == outside.database_url
            assert inside.redis_url == outside.redis_url
        assert target.read_text() == "still there"


def test_migrate_makes_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stack(tmp_path, only={"postgres"}) as stack:
        monkeypatch.setenv("DATABASE_URL", stack.database_url)
        monkeypatch.chdir(project_root())  # a checkout need not be installed
        assert run("migrate")[0] == 0
        with psycopg.connect(stack.database_url.replace("+psycopg", "")) as connection:
            row = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
        assert row == (1,)


def test_a_stale_postmaster_pid_that_is_someone_elses_now(tmp_path: Path) -> None:
    lock = tmp_path / "postgres" / "data" / "postmaster.pid"
    with Stack(tmp_path, only={"postgres"}):
        lines = lock.read_text().split("\n")
        owner = lock.stat().st_uid
    # The new owner of the pid runs as the same user: others Postgres sees through itself.
    user = None if owner == os.geteuid() else owner
    other = subprocess.Popen(["sleep", "3600"], user=user, cwd="/")
    try:
        lock.write_text("\n".join([str(other.pid), *lines[1:]]))
        os.chown(lock, owner, -1)
        with Stack(tmp_path, only={"postgres"}) as stack:
            assert stack.process("postgres").is_running()
    finally:
        other.kill()
        other.wait()


def test_a_first_start_cut_off_in_the_middle_is_done_again(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.init"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with Stack(tmp_path, only={"postgres"}) as stack:
        assert stack.process("postgres").is_running()
    assert not half.exists()


def test_the_record_is_for_its_owner_only(tmp_path: Path) -> None:
    with Stack(tmp_path, only={"redis"}):
        assert state.record_path(tmp_path).stat().st_mode & 0o077 == 0


def test_config_survives_the_command_line() -> None:
    config = StackConfig(home="x", only=frozenset({"a"}), processes=(standin("a", "die"),))
    assert StackConfig.from_json(config.to_json()) == config


ORDINARY = """
import sys
from selftaught.stack.handle import Stack
import psycopg
with Stack(sys.argv[1], only={"postgres", "redis"}) as stack:
    with psycopg.connect(stack.database_url.replace("+psycopg", "")) as connection:
        print(connection.execute("SELECT current_database()").fetchone()[0])
    print(stack.process("postgres").username())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_can_run_it() -> None:
    """Root's own start is what every other test shows; here nobody starts one."""
    account = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="selftaught-") as folder:
        os.chown(folder, account.pw_uid, account.pw_gid)
        paths = [str(project_root()), *(path for path in sys.path if "site-packages" in path)]
        env = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(paths), "HOME": folder}

        def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                arguments,
                env=env,
                cwd=folder,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )

        for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
            try:
                usable = as_nobody(python, "-c", "import psycopg, selftaught").returncode == 0
            except (PermissionError, FileNotFoundError):
                continue
            if usable:
                break
        else:
            pytest.skip("no interpreter here is open to other users")
        result = as_nobody(python, "-c", ORDINARY, os.path.join(folder, "home"))
        assert result.stdout.split() == ["selftaught", "nobody"], result.stderr
