"""One process that starts everything, restarts what dies, and stops everything in order.

A single loop without threads: every tick reaps the dead, restarts what is due, and writes
stack.json if something changed. Each child leads a session of its own, so a Ctrl-C in the terminal
reaches only the supervisor, and a child's whole group can be killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import psutil

from selftaught.stack import redis, services, state
from selftaught.stack.guard import MARK, Entry, Guard, kill_group, stop_all, sweep
from selftaught.stack.postgres import Postgres
from selftaught.stack.spec import ProcessSpec, StackConfig, StackError
from selftaught.stack.state import ProcessRecord, StackRecord

TICK_SECONDS = 0.1
BACKOFF_FIRST, BACKOFF_LAST = 0.5, 30.0
DEATHS, DEATHS_WINDOW = 5, 60.0
"""So many deaths within so many seconds, before the stack was ever ready, fail the start."""
LOG_LIMIT = 20 * 2**20

# Whatever proxy the environment names is not for 127.0.0.1.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Child:
    """A spec and the process that runs it now."""

    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    started: float | None = None
    state: str = "waiting"
    restarts: int = 0
    backoff: float = BACKOFF_FIRST
    due: float = 0.0
    log_start: int = 0
    since: float = 0.0
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))


class Stopped(Exception):
    """Someone asked the stack to stop while it was starting."""


class Supervisor:
    """One stack from start to stop; :meth:`run` is the whole life."""

    def __init__(self, config: StackConfig, report: Callable[[str], None]) -> None:
        self.config = config
        self.report = report
        self.home = Path(config.home).resolve()
        self.logs = self.home / "logs"
        self.stop = threading.Event()
        self.children: dict[str, Child] = {}
        self.mark = secrets.token_hex(8)
        self.state = "starting"
        self.error: str | None = None
        self.urls: dict[str, str] = {}
        self.env: dict[str, str] = {}
        self.changed = True

    def run(self) -> None:
        """Start, watch until told to stop, stop. Raises :class:`StackError` if the start fails."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with state.take_lock(self.home), self._signals():
            self._clear_leftovers()
            with (self.logs / "supervisor.log").open("ab") as log:
                self.guard = Guard(self.mark, log.fileno())
                try:
                    self._start()
                    self.state, self.changed = "ready", True
                    while not self.stop.is_set():
                        self._tick()
                except Stopped:
                    pass
                except StackError as failure:
                    self.error = str(failure)
                    raise
                finally:
                    self._stop()

    # ------------------------------------------------------------ start

    def _start(self) -> None:
        taken: set[int] = set()

        def port(wanted: int) -> int:
            if wanted and not state.port_is_free(wanted):
                raise StackError(f"port {wanted} is in use")
            chosen = wanted or state.free_port(taken.__contains__)
            taken.add(chosen)
            return chosen

        self.env = self._environment()
        if self.config.wants("postgres"):
            self._start_postgres(port)
        if self.config.wants("redis"):
            self._start_redis(port)
        if self.config.processes is not None:
            specs = list(self.config.processes)
        else:
            specs = self._services(port)
            if self.config.wants("migrations"):
                self._run_once(services.migrations())
        for spec in specs:
            if self.config.wants(spec.name):
                self.report(f"starting {spec.name}")
                self._spawn(spec)
        for child in list(self.children.values()):
            self._wait(child.spec.name, partial(self._is_ready, child))
            self.report(" ".join(filter(None, (child.spec.name, "is ready", child.spec.url))))

    def _start_postgres(self, port: Callable[[int], int]) -> None:
        given = os.environ.get("DATABASE_URL")
        if given:
            self.report("using the Postgres of DATABASE_URL")
            self.urls["database"] = given
            return
        postgres = Postgres(self.home, port(0))
        initdb = postgres.initdb()
        if initdb is not None:
            self.report("making a database folder")
            self._run_once(initdb)
            postgres.finish_initdb()
        self.report("starting postgres")
        self._spawn(postgres.server())
        self._wait("postgres", postgres.is_ready)
        self.urls["database"] = self.env["DATABASE_URL"] = postgres.url

    def _start_redis(self, port: Callable[[int], int]) -> None:
        given = os.environ.get("REDIS_URL")
        if given:
            self.report("using the Redis of REDIS_URL")
            self.urls["redis"] = given
            return
        chosen = port(0)
        self.report("starting redis")
        self._spawn(redis.server(chosen))
        self._wait("redis", lambda: redis.is_ready(chosen))
        self.urls["redis"] = self.env["REDIS_URL"] = redis.url(chosen)

    def _services(self, port: Callable[[int], int]) -> list[ProcessSpec]:
        wanted = self.config.port
        if wanted is None:
            wanted = 8080 if state.port_is_free(8080) else 0
        gateway = port(wanted)
        evaluators = [port(self.config.evaluator_port)]
        evaluators += [port(0) for _ in range(1, self.config.evaluators)]
        urls = [f"http://127.0.0.1:{evaluator}" for evaluator in evaluators]
        self.urls["gateway"] = f"http://127.0.0.1:{gateway}"
        self.urls["evaluator"] = urls[0]
        self.env["EVALUATOR_URL"] = ",".join(urls)
        return services.services(self.config, gateway, evaluators)

    def _environment(self) -> dict[str, str]:
        env = {**os.environ, MARK: self.mark, "SELFTAUGHT_HOME": str(self.home)}
        env["TOKENIZERS_PARALLELISM"] = "false"
        env["PYTHONUNBUFFERED"] = "1"
        env["NO_PROXY"] = ",".join(filter(None, [env.get("NO_PROXY"), "127.0.0.1,localhost"]))
        root = services.project_root()
        if (root / "pyproject.toml").exists():
            # A checkout that need not be installed, started from whatever folder.
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), env.get("PYTHONPATH")]))
        return {**env, **self.config.env}

    # ------------------------------------------------------------ processes

    def _spawn(self, spec: ProcessSpec) -> Child:
        child = self.children.setdefault(spec.name, Child(spec))
        with self._log(spec.name) as log:
            child.log_start = log.seek(0, os.SEEK_END)
            try:
                child.process = subprocess.Popen(
                    spec.command,
                    env={**self.env, "SELFTAUGHT_ROLE": spec.name, **spec.env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=spec.cwd,
                    user=spec.user,
                    group=spec.group,
                    extra_groups=None if spec.user is None else [],
                )
            except OSError as error:
                raise StackError(f"cannot start {spec.name}: {error}") from error
        child.started = psutil.Process(child.process.pid).create_time()
        child.state, child.since, self.changed = "running", time.monotonic(), True
        self.guard.add(self._entry(child))
        return child

    def _log(self, name: str) -> BinaryIO:
        path = self.log_path(name)
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    @staticmethod
    def _entry(child: Child) -> Entry:
        assert child.process is not None and child.started is not None
        spec = child.spec
        return Entry(
            pid=child.process.pid,
            started=child.started,
            tier=int(spec.tier),
            signal=spec.stop_signal,
            grace=spec.stop_seconds,
        )

    def _reap(self, child: Child) -> int | None:
        """The exit status if the process has ended; nothing of its group is left then."""
        if child.process is None:
            return None
        status = child.process.poll()
        if status is not None:
            kill_group(child.process.pid)
            self.guard.remove(child.process.pid)
            child.process, child.started, self.changed = None, None, True
        return status

    def _tick(self) -> None:
        """Reap, restart what is due, write what changed, then rest."""
        self.guard.check()
        now = time.monotonic()
        for child in self.children.values():
            status = self._reap(child)
            if status is not None:
                self._died(child, status, now)
            elif child.process is None and child.state == "restarting" and now >= child.due:
                self._spawn(child.spec)
                child.restarts += 1
        self._write()
        self.stop.wait(TICK_SECONDS)

    def _died(self, child: Child, status: int, now: float) -> None:
        if now - child.since > DEATHS_WINDOW:
            child.backoff = BACKOFF_FIRST
        child.state, child.due = "restarting", now + child.backoff
        child.deaths.append(now)
        name = child.spec.name
        self.report(f"{name} ended with status {status}; restart in {child.backoff:.1f} s")
        child.backoff = min(child.backoff * 2, BACKOFF_LAST)
        if (
            self.state == "starting"
            and len(child.deaths) == DEATHS
            and now - child.deaths[0] < DEATHS_WINDOW
        ):
            child.state = "failed"
            raise self._failure(name, f"died {DEATHS} times in a row")

    def _failure(self, name: str, what: str) -> StackError:
        log = self.log_path(name)
        return StackError(f"{name} {what}; the end of {log}:\n{state.tail(log)}")

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Tick until `ready`."""
        deadline = time.monotonic() + self.config.ready_seconds
        while not ready():
            if self.stop.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                raise self._failure(name, f"was not ready in {self.config.ready_seconds:.0f} s")
            self._tick()

    def _is_ready(self, child: Child) -> bool:
        """Whether it runs, answers, and says what its spec waits for."""
        spec = child.spec
        if child.process is None or (spec.ready_url and not answers(spec.ready_url)):
            return False
        if spec.ready_text is None:
            return True
        with self.log_path(spec.name).open("rb") as log:
            log.seek(child.log_start)
            return spec.ready_text.encode() in log.read()

    def _run_once(self, spec: ProcessSpec) -> None:
        """Run a step to its end, guarded like everything else."""
        self.report(f"running {spec.name}")
        child = self._spawn(spec)
        while (status := self._reap(child)) is None:
            if self.stop.is_set():
                raise Stopped
            self.stop.wait(TICK_SECONDS)
        del self.children[spec.name]
        if status != 0:
            raise self._failure(spec.name, f"failed with status {status}")

    # ------------------------------------------------------------ stop

    def _stop(self) -> None:
        """Everything ends, tier by tier; what does not is killed."""
        self.state, self.changed = "stopping", True
        self._write()
        alive = [child for child in self.children.values() if child.process is not None]
        if alive:
            self.report("stopping " + ", ".join(child.spec.name for child in alive))
        stop_all(self._entry(child) for child in alive)
        for child in alive:
            assert child.process is not None
            child.process.wait()
            self._reap(child)
        for child in self.children.values():
            child.state = "failed" if child.state == "failed" else "stopped"
        self.guard.close()
        self.state, self.changed = ("failed" if self.error else "stopped"), True
        self._write()
        self.report("stopped")

    def _clear_leftovers(self) -> None:
        """An earlier stack may have died together with its guard: end what it left."""
        record = state.read(self.home)
        if record is None or record["state"] in ("stopped", "failed"):
            return
        entries = [
            Entry(p["pid"], p["started"], p["tier"], p["signal"], p["grace"])
            for p in record["processes"]
            if p["pid"] is not None and p["started"] is not None
        ]
        stop_all(entries, limit=5.0)
        sweep(record["id"])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask for a clean stop."""
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, lambda *_: self.stop.set()) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # ------------------------------------------------------------ record

    def _write(self) -> None:
        if not self.changed:
            return
        self.changed = False
        own = psutil.Process()
        record: StackRecord = {
            "id": self.mark,
            "state": self.state,
            "error": self.error,
            "supervisor": {"pid": own.pid, "started": own.create_time()},
            "urls": self.urls,
            "processes": [self._record(child) for child in self.children.values()],
        }
        state.write(self.home, record)

    def _record(self, child: Child) -> ProcessRecord:
        return {
            "name": child.spec.name,
            "state": child.state,
            "pid": child.process.pid if child.process else None,
            "started": child.started,
            "restarts": child.restarts,
            "tier": int(child.spec.tier),
            "signal": child.spec.stop_signal,
            "grace": child.spec.stop_seconds,
            "url": child.spec.url,
            "log": str(self.log_path(child.spec.name)),
        }


def answers(url: str) -> bool:
    """Whether `url` answers 200."""
    try:
        with _http.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
