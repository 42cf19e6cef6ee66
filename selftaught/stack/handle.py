"""A stack as others hold it: started in a process of its own, known through stack.json.

::

    with Stack(home=folder, generator_workers=1) as stack:
        httpx.get(stack.gateway_url + "/readyz")
        stack.kill("redis")

The command line, the demo and the tests all come this way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from selftaught.stack import state
from selftaught.stack.services import project_root
from selftaught.stack.spec import AlreadyRunning, ProcessSpec, StackConfig, StackError
from selftaught.stack.state import ProcessRecord, StackRecord

POLL_SECONDS = 0.1


class Stack:
    """Start with :meth:`start` or ``with``; what it says about itself is read afresh each time."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        *,
        port: int | None = 0,
        evaluator_port: int = 0,
        evaluators: int = 1,
        generator_workers: int = 2,
        trainer_workers: int = 1,
        only: Collection[str] | None = None,
        processes: Sequence[ProcessSpec] | None = None,
        env: Mapping[str, str] | None = None,
        ready_seconds: float = 300.0,
        tied: bool = True,
    ) -> None:
        """See :class:`StackConfig`. `tied`: the stack stops when this process ends, however."""
        self.home = Path(home).resolve()
        self.config = StackConfig(
            home=str(self.home),
            port=port,
            evaluator_port=evaluator_port,
            evaluators=evaluators,
            generator_workers=generator_workers,
            trainer_workers=trainer_workers,
            only=None if only is None else frozenset(only),
            processes=None if processes is None else tuple(processes),
            env=dict(env or {}),
            ready_seconds=ready_seconds,
            tied=tied,
        )
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stack:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, watch: Callable[[StackRecord], None] = lambda record: None) -> Stack:
        """Return when everything is ready; `watch` sees each record on the way there."""
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        path = logs / "supervisor.log"
        env = dict(os.environ)
        if (project_root() / "pyproject.toml").exists():
            parts = [str(project_root()), env.get("PYTHONPATH")]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, parts))
        with path.open("ab") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "selftaught.stack", self.config.to_json()],
                stdin=subprocess.PIPE if self.config.tied else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        try:
            self._await_ready(self._supervisor, path, watch)
        except BaseException:
            self.stop()
            raise
        return self

    def _await_ready(
        self,
        process: subprocess.Popen[bytes],
        log: Path,
        watch: Callable[[StackRecord], None],
    ) -> None:
        while True:
            status = process.poll()
            if status == 3:
                raise AlreadyRunning(f"a stack already runs in {self.home}")
            record = state.read(self.home)
            own = record is not None and record["supervisor"]["pid"] == process.pid
            if status is not None:
                why = record["error"] if record is not None and own else None
                raise StackError(why or f"the stack ended; the end of {log}:\n{state.tail(log)}")
            if record is not None and own:
                watch(record)
                if record["state"] == "ready":
                    return
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop the stack that this object started; nothing if it has ended."""
        process = self._supervisor
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._supervisor = None

    # ------------------------------------------------------------ what it says about itself

    @property
    def record(self) -> StackRecord:
        """stack.json as it is now."""
        record = state.read(self.home)
        if record is None:
            raise StackError(f"no stack was started in {self.home}")
        return record

    def process(self, name: str) -> psutil.Process:
        """The process `name` as it runs now; raises if it is just being restarted."""
        pid = self._process_record(name)["pid"]
        if pid is None:
            raise StackError(f"{name} does not run at the moment")
        return psutil.Process(pid)

    def restarts(self, name: str) -> int:
        """How often `name` died and was started again."""
        return self._process_record(name)["restarts"]

    def log(self, name: str) -> str:
        """All that `name` has written."""
        return Path(self._process_record(name)["log"]).read_text(errors="replace")

    def kill(self, name: str) -> int:
        """``kill -9`` on process `name`; returns its pid. The supervisor starts it again."""
        process = self.process(name)
        process.kill()
        return int(process.pid)

    def _process_record(self, name: str) -> ProcessRecord:
        for record in self.record["processes"]:
            if record["name"] == name:
                return record
        raise StackError(f"this stack has no process named {name}")

    def _url(self, name: str) -> str:
        urls = self.record["urls"]
        if name not in urls:
            raise StackError(f"this stack has no {name}, or not yet")
        return urls[name]

    @property
    def supervisor_pid(self) -> int:
        return self.record["supervisor"]["pid"]

    @property
    def gateway_url(self) -> str:
        return self._url("gateway")

    @property
    def evaluator_url(self) -> str:
        return self._url("evaluator")

    @property
    def database_url(self) -> str:
        return self._url("database")

    @property
    def redis_url(self) -> str:
        return self._url("redis")


def stop_home(home: Path, timeout: float = 180.0) -> bool:
    """Stop whatever stack runs in `home`, waiting for it; False if none did.

    Only a supervisor that holds the home's lock is signalled, and only if its create time is the
    recorded one: never a process that merely got its pid.
    """
    record = state.read(home)
    if record is None or not record["running"]:
        return False
    recorded = record["supervisor"]
    try:
        supervisor = psutil.Process(recorded["pid"])
        if abs(supervisor.create_time() - recorded["started"]) > 1.0:
            raise StackError(f"pid {recorded['pid']} is not the supervisor of {home}; not touched")
        supervisor.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        pass  # it ended since
    deadline = time.monotonic() + timeout
    while state.is_locked(home):
        if time.monotonic() > deadline:
            raise StackError(f"the stack in {home} is still stopping after {timeout:.0f} s")
        time.sleep(POLL_SECONDS)
    return True
