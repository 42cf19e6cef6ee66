"""Faults against a real server: it feels each of them, and comes back from each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from redis import Redis

from chaos.inject import Done, Injector
from chaos.plan import Fault
from selftaught.stack.handle import Stack


def faults(redis: Redis, pid: int) -> Iterator[Fault]:
    """Each fault, and before the next one what it has done."""
    redis.set("message", "1")
    yield Fault(1, "flush", "redis", 0.0, 0.0)
    assert redis.get("message") is None
    connection = redis.client_id()
    yield Fault(2, "cut", "redis", 0.0, 0.0)
    assert redis.client_id() != connection, "the client had to connect anew"
    yield Fault(3, "freeze", "redis", 0.0, 60.0)
    for _ in range(200):  # a signal takes a moment to arrive
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the server was not stopped")
    yield Fault(4, "kill", "redis", 0.0, 0.0)


def test_a_server_feels_every_fault(tmp_path: Path) -> None:
    told: list[Done] = []
    with Stack(tmp_path, only={"redis"}) as stack:
        pid = stack.process("redis").pid
        injector = Injector(stack, told.append)
        with Redis.from_url(stack.redis_url) as redis:
            injector.run(faults(redis, pid), lambda count: count == 4)
        injector.wake_all()
        assert [(one.fault.kind, one.carried_out) for one in told] == [
            ("flush", True),
            ("cut", True),
            ("freeze", True),
            ("kill", True),
        ]
        while stack.restarts("redis") == 0:
            time.sleep(0.05)
        assert stack.process("redis").pid != pid


def test_a_frozen_server_is_woken(tmp_path: Path) -> None:
    with Stack(tmp_path, only={"redis"}) as stack:
        process = stack.process("redis")
        injector = Injector(stack, lambda done: None)
        injector.run(iter([Fault(1, "freeze", "redis", 0.0, 0.3)]), lambda count: False)
        while process.status() == psutil.STATUS_STOPPED:
            time.sleep(0.05)
        assert Redis.from_url(stack.redis_url).ping()
