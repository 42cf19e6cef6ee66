"""What dies is restarted, what is stopped is gone, and nothing survives its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from selftaught.stack.guard import is_gone
from selftaught.stack.handle import Stack
from selftaught.stack.spec import StackError, Tier
from tests.stack.conftest import standin, tree, wait_until, wait_until_gone


def ask(stack: Stack, query: str) -> object:
    """One value from the stack's Postgres."""
    url = stack.database_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def answers(question: Callable[[], object]) -> bool:
    """Whether the server that `question` asks is back."""
    try:
        question()
    except (psycopg.OperationalError, redis.ConnectionError, StackError):
        return False
    return True


def restarted(stack: Stack, name: str) -> bool:
    return stack.restarts(name) == 1


def sleep_in_database(stack: Stack) -> None:
    """A backend that is busy until someone stops it."""

    def sleep() -> None:
        try:
            ask(stack, "SELECT pg_sleep(3600)")
        except psycopg.OperationalError:
            return

    threading.Thread(target=sleep, daemon=True).start()
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    wait_until(lambda: ask(stack, query) == 1, "the query runs")


def test_stop_ends_everything_and_keeps_the_data(tmp_path: Path) -> None:
    worker = standin("worker", "family")
    with Stack(tmp_path, processes=[worker]) as stack:
        ask(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert redis.Redis.from_url(stack.redis_url).ping()
        sleep_in_database(stack)
        processes = tree(stack.supervisor_pid)
        # supervisor, guard, redis, worker, its two children, Postgres and its own
        assert len(processes) > 8
    wait_until_gone(processes)
    assert stack.record["state"] == "stopped"
    assert not stack.record["running"]

    with Stack(tmp_path, only={"postgres"}) as stack:
        assert ask(stack, "SELECT answer FROM kept") == 42


def test_nothing_survives_a_killed_supervisor(tmp_path: Path) -> None:
    stack = Stack(tmp_path, processes=[standin("worker", "family"), standin("deaf", "stubborn")])
    stack.start()
    ask(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    sleep_in_database(stack)
    processes = tree(stack.supervisor_pid)
    os.kill(stack.supervisor_pid, signal.SIGKILL)
    wait_until_gone(processes)
    stack.stop()

    # and the next start finds its way, though nobody shut down and stack.json says "ready"
    assert stack.record["state"] == "ready"
    with Stack(tmp_path, only={"postgres"}) as stack:
        assert ask(stack, "SELECT answer FROM kept") == 42


def test_a_killed_guard_is_replaced(tmp_path: Path) -> None:
    stack = Stack(tmp_path, processes=[standin("worker", "family")], only={"worker"}).start()

    def guards() -> list[psutil.Process]:
        children = psutil.Process(stack.supervisor_pid).children()
        alive = [child for child in children if not is_gone(child)]
        return [child for child in alive if "selftaught.stack.guard" in child.cmdline()]

    (old,) = guards()
    old.kill()
    wait_until(lambda: [g.pid for g in guards()] not in ([], [old.pid]), "a new guard runs")
    processes = tree(stack.supervisor_pid)
    os.kill(stack.supervisor_pid, signal.SIGKILL)
    wait_until_gone(processes)
    stack.stop()


def test_the_next_start_clears_what_a_killed_guard_left(tmp_path: Path) -> None:
    worker = standin("worker", "family")
    stack = Stack(tmp_path, processes=[worker], only={"postgres", "worker"}).start()
    wait_until(lambda: len(tree(stack.process("worker").pid)) == 3, "the worker has children")
    ask(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    supervisor = psutil.Process(stack.supervisor_pid)
    left = [p for p in tree(supervisor.pid) if p != supervisor]
    guard = next(p for p in left if "selftaught.stack.guard" in p.cmdline())
    supervisor.suspend()  # so that it cannot replace the guard
    guard.kill()
    supervisor.kill()
    stack.stop()
    assert psutil.pid_exists(stack.process("postgres").pid)

    with Stack(tmp_path, only={"postgres"}) as stack:
        wait_until_gone(left)
        assert ask(stack, "SELECT answer FROM kept") == 42


def test_the_dead_are_restarted_at_their_old_address(tmp_path: Path) -> None:
    with Stack(tmp_path, processes=[standin("worker", "family")]) as stack:
        ask(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
        addresses = (stack.database_url, stack.redis_url)
        family = tree(stack.process("worker").pid)
        own_session = [p for p in family if os.getsid(p.pid) == p.pid and p != family[0]]
        assert len(own_session) == 1
        for name in ("redis", "worker", "postgres"):
            stack.kill(name)
            wait_until(partial(restarted, stack, name), f"{name} was restarted")
        # what it had started is gone before the new one starts
        wait_until_gone([process for process in family if process not in own_session])
        wait_until(lambda: stack.log("worker").count("up\n") == 2, "the worker is up again")
        client = redis.Redis.from_url(stack.redis_url)
        wait_until(lambda: answers(client.ping), "Redis is back")
        wait_until(lambda: answers(lambda: ask(stack, "SELECT 1")), "Postgres is back")
        assert ask(stack, "SELECT answer FROM kept") == 42
        assert (stack.database_url, stack.redis_url) == addresses
    # even a process that left its parent's session and then lost its parent
    wait_until_gone(own_session)


def test_a_process_that_always_dies_fails_the_start_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"(?s)broken died 5 times.*I cannot work like this"):
        Stack(tmp_path, processes=[standin("broken", "die")], only={"redis", "broken"}).start()
    record = Stack(tmp_path).record
    assert record["state"] == "failed"
    assert [process["pid"] for process in record["processes"]] == [None, None]


def test_workers_stop_while_postgres_is_still_there(tmp_path: Path) -> None:
    target = tmp_path / "answer"
    worker = standin("worker", "query-on-stop", str(target))
    with Stack(tmp_path, processes=[worker], only={"postgres", "worker"}):
        assert not target.exists()
    assert target.read_text() == "still there"


def test_a_process_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    deaf = standin("deaf", "stubborn", tier=Tier.SERVICE, grace=0.5)
    with Stack(tmp_path, processes=[deaf], only={"deaf"}) as stack:
        processes = tree(stack.supervisor_pid)
    wait_until_gone(processes)


def test_a_stack_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, sys; from selftaught.stack.handle import Stack\n"
        "print(Stack(sys.argv[1], only={'redis'}).start().supervisor_pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert result.returncode == -signal.SIGKILL
    wait_until(lambda: not Stack(tmp_path).record["running"], "the stack stopped")
    assert Stack(tmp_path).record["state"] == "stopped"
