"""Does to a running stack what the plan says, and notes what it did.

Every process is named through the stack's own record, so nothing else on the machine is touched. A
frozen process is woken by a timer, and other faults go on meanwhile; faults of any kind meet.
"""

from __future__ import annotations

import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import psutil
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from chaos.plan import CHILD, PAST_LEASE, SUPERVISOR, WORKERS, Fault
from selftaught.stack.handle import Stack
from selftaught.stack.spec import AlreadyRunning, StackError

WAIT_SECONDS = 30.0
"""How long a fault waits for a target that is just being restarted."""
HOLDING = text("SELECT id, lock_token FROM chunks WHERE state = 'running' AND lock_owner = :owner")
LOST = text(
    """
    SELECT id FROM chunks WHERE id = :id AND lock_token IS DISTINCT FROM :token
      AND NOT EXISTS (SELECT 1 FROM artifacts WHERE path LIKE '%.' || :token || '.%')
    """
)
"""The lease is gone, and not because the holder's result came in just before it froze."""


@dataclass
class Done:
    """A fault as it was carried out; `note` says what it met."""

    fault: Fault
    at: float
    pid: int | None = None
    note: str = ""
    carried_out: bool = True

    def as_json(self) -> dict[str, object]:
        return {**asdict(self.fault), "at": round(self.at, 2), "pid": self.pid, "note": self.note,
                "carried_out": self.carried_out}  # fmt: skip


class Target(Exception):
    """There was nothing to break: the target did not run in time."""


@dataclass
class Injector:
    """Carries faults out, one after the other; :meth:`wake_all` ends every freeze."""

    stack: Stack
    say: Callable[[Done], None]
    started: float = field(default_factory=time.monotonic)
    done: list[Done] = field(default_factory=list)
    dead_tokens: dict[str, str] = field(default_factory=dict)
    """Token -> chunk, of leases that a frozen worker lost; nothing of theirs may be applied."""
    _asleep: dict[int, psutil.Process] = field(default_factory=dict)
    _timers: list[threading.Timer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, faults: Iterator[Fault], until: Callable[[int], bool]) -> None:
        """Faults in turn, until `until(number carried out)` or :meth:`stop`.

        Those that need a moment (a training child, a worker that holds a lease) lie in wait for it
        while the others go on.
        """
        waiting = []
        for fault in faults:
            if self._stop.wait(fault.after) or until(self.count):
                break
            if _lies_in_wait(fault):
                thread = threading.Thread(target=self._one, args=(fault,), daemon=True)
                thread.start()
                waiting.append(thread)
            else:
                self._one(fault)
        self.stop()
        for thread in waiting:
            thread.join()

    def _one(self, fault: Fault) -> None:
        done = Done(fault, 0.0)
        try:
            self._carry_out(fault, done)
        except (Target, psutil.NoSuchProcess) as error:
            done.carried_out, done.note = False, f"not carried out: {error}"
        done.at = time.monotonic() - self.started
        self.done.append(done)
        self.say(done)

    def stop(self) -> None:
        """No further fault."""
        self._stop.set()

    def wake_all(self) -> None:
        """End all freezes now."""
        for timer in self._timers:
            timer.cancel()
        for process in list(self._asleep.values()):
            _signal(process, signal.SIGCONT)
        self._asleep.clear()

    @property
    def count(self) -> int:
        """Faults that were carried out."""
        return sum(done.carried_out for done in self.done)

    def _carry_out(self, fault: Fault, done: Done) -> None:
        if fault.target == SUPERVISOR:
            self._kill_supervisor(done)
        elif fault.kind in ("flush", "cut"):
            self._over_a_connection(fault)
        else:
            process = self._find(fault)
            done.pid = process.pid
            if fault.kind == "kill":
                process.kill()
            elif fault.kind == "stop":
                fast = signal.SIGINT if fault.target == "postgres" else signal.SIGTERM
                process.send_signal(fast)
            else:
                self._freeze(fault, process, done)

    # ------------------------------------------------------------ targets

    def _find(self, fault: Fault) -> psutil.Process:
        """The target's process; waits for one that is being restarted, and for the right moment."""
        lease = fault.kind == PAST_LEASE
        deadline = time.monotonic() + (math.inf if _lies_in_wait(fault) else WAIT_SECONDS)
        while time.monotonic() < deadline and not self._stop.is_set():
            found = self._look(fault)
            if found is not None and (not lease or self._held(fault.target, found.pid)):
                return found
            self._stop.wait(0.2)
        raise Target(f"no {fault.target} that holds a lease" if lease else f"no {fault.target}")

    def _look(self, fault: Fault) -> psutil.Process | None:
        """None if it does not run, or is to be frozen and is already."""
        try:
            if fault.target == CHILD:
                return self._training_child()
            process = self.stack.process(fault.target)
            asleep = fault.kind.startswith("freeze") and process.pid in self._asleep
            return None if asleep else process
        except (StackError, psutil.NoSuchProcess):
            return None

    def _training_child(self) -> psutil.Process | None:
        for name in WORKERS:
            if not name.startswith("trainer"):
                continue
            with suppress(StackError, psutil.Error):
                for child in self.stack.process(name).children():
                    if "services.trainer.child" in " ".join(child.cmdline()):
                        return child
        return None

    # ------------------------------------------------------------ freezes

    def _freeze(self, fault: Fault, process: psutil.Process, done: Done) -> None:
        """Stop the process (Postgres: with all its own) and set its alarm clock."""
        family = [process]
        if fault.target == "postgres":
            family += process.children(recursive=True)
        for one in family:
            _signal(one, signal.SIGSTOP)
        self._asleep[process.pid] = process
        held = self._held(fault.target, process.pid) if fault.target in WORKERS else []
        done.note = f"{fault.hold:.1f} s"
        if held:
            done.note += ", holds " + ", ".join(chunk for chunk, _ in held)
        timer = threading.Timer(fault.hold, self._wake, [family, held])
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _wake(self, family: list[psutil.Process], held: list[tuple[str, str]]) -> None:
        """Before the worker can act again, note which of its leases it has lost."""
        for chunk, token in held:
            if self._query(LOST, {"id": chunk, "token": token}):
                self.dead_tokens[token] = chunk
        for one in family:
            _signal(one, signal.SIGCONT)
        self._asleep.pop(family[0].pid, None)

    def _held(self, name: str, pid: int) -> list[tuple[str, str]]:
        """(chunk, token) of the leases that a worker holds, if the database can be asked."""
        owner = f"{name}@{socket.gethostname()}:{pid}"
        return [(row[0], row[1]) for row in self._query(HOLDING, {"owner": owner})]

    # ------------------------------------------------------------ connections, supervisor

    def _over_a_connection(self, fault: Fault) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._stop.is_set():
            try:
                if fault.target == "postgres":
                    with self._engine().connect() as connection:
                        connection.execute(text(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                        ))  # fmt: skip
                    return
                with Redis.from_url(self.stack.redis_url, socket_timeout=3) as redis:
                    if fault.kind == "flush":
                        redis.flushall()
                    else:
                        redis.client_kill_filter(_type="normal", skipme=True)
                return
            except (DBAPIError, RedisError, StackError) as error:
                if time.monotonic() > deadline:
                    raise Target(f"{fault.target} does not answer") from error
                time.sleep(0.2)

    def _kill_supervisor(self, done: Done) -> None:
        """kill -9, and once its guard has ended everything, the stack again, as an init would."""
        record = self.stack.record
        done.pid = record["supervisor"]["pid"]
        psutil.Process(done.pid).kill()
        self.stack.stop()  # reaps it
        while any(_alive(p["pid"], p["started"]) for p in record["processes"]):
            time.sleep(0.1)
        began = time.monotonic()
        for attempt in range(3):
            try:
                self.stack.start()
                break
            except (StackError, AlreadyRunning):
                if attempt == 2:
                    raise
                time.sleep(2.0)
        self._asleep.clear()
        done.note = f"up again {time.monotonic() - began:.0f} s later"

    def _query(self, query: object, values: dict[str, str]) -> list[tuple[str, ...]]:
        """Rows; none while the database is away or frozen."""
        try:
            with self._engine().connect() as connection:
                return [tuple(row) for row in connection.execute(query, values)]  # type: ignore[call-overload]
        except (DBAPIError, StackError):
            return []

    def _engine(self) -> Engine:
        # No pool: every connection may be cut by the next fault, and the port may be another one.
        patience = {"connect_timeout": 3, "options": "-c statement_timeout=3000"}
        return create_engine(self.stack.database_url, poolclass=NullPool, connect_args=patience)


def _lies_in_wait(fault: Fault) -> bool:
    return fault.target == CHILD or fault.kind == PAST_LEASE


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _alive(pid: int | None, started: float | None) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    if pid is None or started is None:
        return False
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
