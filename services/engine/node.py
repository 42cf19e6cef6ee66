"""What a node does: compare what is wanted with what it runs, again and again.

    wanted (engine_demands) ─► devices leased ─► server started ─► ready ─► adapters loaded, checked
                                    ▲                               │ crash, hang, out of memory
                                    └───────── started anew ◄───────┘ (a few times, then failed)

A training that waits for this node's devices has the way: their servers are drained and stopped,
and come back when the devices are free. All that others need to know stands in the database; what
is here in memory can be lost, for a node that begins anew runs nothing.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import delete, func, select, update

from selftaught import devices
from selftaught.contracts import Problem
from selftaught.database import transaction
from selftaught.database.tables import EngineAdapter, EngineDemand, EngineServer, Job
from selftaught.engines import Spec
from selftaught.ids import new_id
from selftaught.settings import Settings
from selftaught.stack.state import free_port
from selftaught.store import StoreError, StoreUnavailable
from selftaught.versions import folder_of
from selftaught.work.events import emit
from services.engine import adapters
from services.engine.server import Server, command

log = logging.getLogger(__name__)

HEALTH_SECONDS = 0.5
WATCH_SECONDS = 5.0
RENEW_SECONDS = 5.0
DRAIN_SECONDS = 60.0
COUNTED = ("prompt_tokens", "prompt_tokens_cached", "generation_tokens")


@dataclass
class Demand:
    """What is asked for under one key: versions with their adapters, and the jobs that ask."""

    spec: Spec
    adapters: dict[str, str] = field(default_factory=dict)  # version -> its path
    jobs: set[str] = field(default_factory=set)


@dataclass
class Running:
    """A server of this node, from its first start to its last."""

    id: str
    spec: Spec
    devices: list[str]
    server: Server
    state: str = "starting"
    jobs: set[str] = field(default_factory=set)
    deaths: int = 0
    ready_since: float = 0.0
    wanted_at: float = field(default_factory=time.monotonic)
    checked: float = 0.0
    drain_until: float = 0.0
    loaded: dict[str, float] = field(default_factory=dict)  # version -> when last wanted
    loading: dict[str, Future[float]] = field(default_factory=dict)
    probing: Future[None] | None = None
    before: Counter[str] = field(default_factory=Counter)  # what it had done for the probe


class Node:
    """One node; call :meth:`tick` for as long as it lives, then :meth:`close`."""

    def __init__(self, settings: Settings, names: list[str]) -> None:
        assert settings.vllm_python is not None
        self._settings = settings
        self._name = settings.node
        self._names = names
        self._servers: dict[str, Running] = {}
        self._failed: dict[str, tuple[str, set[str]]] = {}  # key -> row, and the jobs it failed
        self._loaders = ThreadPoolExecutor(thread_name_prefix="adapters")
        self._fetching: dict[str, Future[Path]] = {}  # key -> the model's folder
        self._renewed = 0.0
        devices.register(self._name, names)
        with transaction() as session:
            session.execute(delete(EngineServer).where(EngineServer.node == self._name))

    def tick(self) -> None:
        """One comparison; nothing in it waits for a server."""
        demands = _demands()
        self._renew()
        self._make_way()
        for running in list(self._servers.values()):
            demand = demands.get(running.spec.key)
            if demand is not None:
                running.wanted_at, running.jobs = time.monotonic(), demand.jobs
            self._watch(running)
            if running.state == "ready":
                self._serve_adapters(running, demand)
        self._forget_failures(demands)
        for key, demand in demands.items():
            if key not in self._servers and key not in self._failed and self._has(demand):
                self._start(demand)
        self._stop_idle()

    def close(self) -> None:
        """Stop everything and give the devices back."""
        for running in list(self._servers.values()):
            self._stop(running, "its node stops")
        self._loaders.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------ starting

    def _has(self, demand: Demand) -> bool:
        """Whether the model is on this node; if not, it is being fetched."""
        spec = demand.spec
        future = self._fetching.get(spec.key)
        if future is None:
            future = self._fetching[spec.key] = self._loaders.submit(folder_of, spec.base)
        if not future.done():
            return False
        try:
            future.result()
        except StoreError as error:
            del self._fetching[spec.key]
            log.warning("%s was not fetched: %s", spec.name, error)
            if not isinstance(error, StoreUnavailable):  # else the next look tries again
                self._record_failure(new_id("srv"), demand, error.code, error.title, str(error))
            return False
        return True

    def _start(self, demand: Demand) -> None:
        """Begin a server, if there are devices for it; if not, one that nobody wants makes room."""
        server_id = new_id("srv")
        try:
            names = devices.acquire(self._name, demand.spec.settings.devices, server_id, "engine")
        except devices.TooFewDevices as error:
            if devices.most() < demand.spec.settings.devices:  # no other node can either
                self._record_failure(
                    server_id, demand, "engine_too_large", "Too few GPUs", str(error)
                )
            return
        if names is None:
            self._make_room(demand.spec)
            return
        server = self._spawn(demand.spec, names)
        running = Running(server_id, demand.spec, names, server, jobs=demand.jobs)
        self._servers[demand.spec.key] = running
        with transaction() as session:
            session.add(
                EngineServer(
                    id=server_id,
                    node=self._name,
                    key=demand.spec.key,
                    spec=demand.spec.model_dump(),
                    state="starting",
                    url=f"{server.url}/v1",
                    pid=server.pid,
                )
            )
        self._say(running, "engine.starting", pid=server.pid, devices=names)

    def _spawn(self, spec: Spec, names: list[str]) -> Server:
        settings = self._settings
        port = free_port()
        here = spec.model_copy(update={"base": str(folder_of(spec.base))})
        arguments, env = command(str(settings.vllm_python), here, names, settings.engine_host, port)
        url = f"http://{settings.engine_address or settings.engine_host}:{port}"
        log.info("starting %s", " ".join(arguments))
        return Server(
            arguments, env, url, settings.home / "logs" / f"vllm-{self._name}-{spec.key}.log"
        )

    def _make_room(self, spec: Spec) -> None:
        """Stop the server that has gone unwanted longest, for one that is wanted."""
        unwanted = [one for one in self._servers.values() if self._unwanted(one)]
        if unwanted:
            oldest = min(unwanted, key=lambda one: one.wanted_at)
            self._stop(oldest, f"{spec.name} needs its devices")

    def _unwanted(self, running: Running) -> bool:
        return time.monotonic() - running.wanted_at > 1.0

    # ------------------------------------------------------------ watching

    def _watch(self, running: Running) -> None:
        code = running.server.exit_code()
        if code is not None:
            self._died(running, f"it ended with status {code}")
        elif running.state == "starting":
            self._await_ready(running)
        elif running.state == "draining":
            if not running.server.load() or time.monotonic() > running.drain_until:
                self._stop(running, "a training needs its devices")
        elif time.monotonic() - running.checked > WATCH_SECONDS:
            running.checked = time.monotonic()
            stuck = running.server.stuck_seconds()
            if stuck > self._settings.engine_hang_seconds:
                self._died(running, f"it made no token for {stuck:.0f} s", hung=True)

    def _await_ready(self, running: Running) -> None:
        if time.monotonic() - running.checked < HEALTH_SECONDS:
            return
        running.checked = time.monotonic()
        if running.server.healthy() and self._takes_adapters(running):
            running.state, running.ready_since = "ready", time.monotonic()
            tokens = running.server.kv_tokens()
            running.before = _done(running.server)
            self._update(running, state="ready", kv_tokens=tokens, ready_at=func.clock_timestamp())
            seconds = round(time.monotonic() - running.server.started, 1)
            self._say(running, "engine.ready", seconds=seconds, kv_tokens=tokens)
        elif (
            running.spec.key in self._servers
            and time.monotonic() - running.server.started > self._settings.engine_start_seconds
        ):
            self._died(running, "it was not ready in time")

    def _takes_adapters(self, running: Running) -> bool:
        """It has loaded an adapter of the kind that will be trained; gives up if it cannot."""
        spec = running.spec
        if spec.probe is None:
            return True
        if running.probing is None:
            running.probing = self._loaders.submit(
                _try_out, running.server.url, spec.name, f"probe-{running.id}", spec.probe
            )
        if not running.probing.done():
            return False
        try:
            running.probing.result()
        except (httpx.TransportError, StoreUnavailable) as error:  # the next look finds out
            log.warning("the probe adapter was not loaded: %s", error)
            running.probing = None
            return False
        except (adapters.AdapterFailed, StoreError) as error:
            running.server.stop()
            self._give_up(running, "no_adapters", str(error))
            return False
        return True

    def _died(self, running: Running, what: str, hung: bool = False) -> None:
        """Clear up after a server that ended or must end, and start it anew, or give up."""
        running.server.clear()
        tail = running.server.tail()
        was_ready = running.state != "starting"
        kind = "hung" if hung else "crashed" if was_ready else "start_failed"
        if running.server.out_of_memory():
            kind = "out_of_memory"
        if (
            was_ready
            and time.monotonic() - running.ready_since > self._settings.engine_calm_seconds
        ):
            running.deaths = 0
        running.deaths += 1
        told = {"what": what, "log": tail, "restarts": running.deaths - 1}
        self._say(running, f"engine.{kind}", **told)
        log.warning("%s %s: %s\n%s", running.spec.name, kind, what, tail)
        if running.deaths > self._settings.engine_restarts:
            self._give_up(running, kind, f"{what}; the end of its log:\n{tail}")
            return
        running.loaded.clear()
        running.loading.clear()
        running.probing = None
        running.state, running.checked = "starting", 0.0
        running.server = self._spawn(running.spec, running.devices)
        with transaction() as session:
            session.execute(delete(EngineAdapter).where(EngineAdapter.server_id == running.id))
        self._update(
            running,
            state="starting",
            url=f"{running.server.url}/v1",
            pid=running.server.pid,
            restarts=EngineServer.restarts + 1,
        )
        self._say(running, "engine.restarted", pid=running.server.pid)

    def _give_up(self, running: Running, kind: str, detail: str) -> None:
        titles = {
            "crashed": "The engine crashed again and again",
            "hung": "The engine hung again and again",
            "start_failed": "The engine does not start",
            "out_of_memory": "The engine has too little memory",
            "no_adapters": "The engine would not serve what is to be trained",
        }
        problem = _problem(f"engine_{kind}", titles[kind], detail)
        self._update(running, state="failed", error=problem, url=None, pid=None)
        self._say(running, "engine.failed", code=problem["code"])
        devices.release(running.id)
        del self._servers[running.spec.key]
        self._failed[running.spec.key] = (running.id, running.jobs)

    def _record_failure(
        self, server_id: str, demand: Demand, code: str, title: str, detail: str
    ) -> None:
        """A server that cannot even be tried."""
        with transaction() as session:
            session.add(
                EngineServer(
                    id=server_id,
                    node=self._name,
                    key=demand.spec.key,
                    spec=demand.spec.model_dump(),
                    state="failed",
                    error=_problem(code, title, detail),
                )
            )
        self._failed[demand.spec.key] = (server_id, demand.jobs)

    def _forget_failures(self, demands: dict[str, Demand]) -> None:
        """What nobody wants any more is tried again for who wants it next, and for a new job."""
        for key, (server_id, jobs) in list(self._failed.items()):
            if key not in demands or demands[key].jobs - jobs:
                with transaction() as session:
                    session.execute(delete(EngineServer).where(EngineServer.id == server_id))
                del self._failed[key]

    # ------------------------------------------------------------ adapters

    def _serve_adapters(self, running: Running, demand: Demand | None) -> None:
        """Load what is wanted, one at a time; unload what is not, when its place is needed.

        An adapter that is asked is wanted; so nothing is unloaded under a request.
        """
        wanted = demand.adapters if demand is not None else {}
        now = time.monotonic()
        for version in wanted:
            if version in running.loaded:
                running.loaded[version] = now
        for version, future in list(running.loading.items()):
            if future.done():
                del running.loading[version]
                self._loaded(running, version, future)
        missing = [v for v in wanted if v not in running.loaded]
        if not missing or running.loading:
            return
        if len(running.loaded) >= running.spec.settings.max_adapters:
            lapsed = [version for version in running.loaded if version not in wanted]
            if not lapsed:
                return
            oldest = min(lapsed, key=lambda version: running.loaded[version])
            del running.loaded[oldest]
            with transaction() as session:
                session.execute(
                    delete(EngineAdapter).where(
                        EngineAdapter.server_id == running.id, EngineAdapter.version_id == oldest
                    )
                )
            self._loaders.submit(adapters.unload, running.server.url, oldest)
            self._say(running, "adapter.unloaded", version=oldest)
        version = missing[0]
        with transaction() as session:
            row = EngineAdapter(server_id=running.id, version_id=version, state="loading")
            session.merge(row)
        running.loading[version] = self._loaders.submit(
            _load, running.server.url, running.spec.name, version, wanted[version]
        )

    def _loaded(self, running: Running, version: str, future: Future[float]) -> None:
        values: dict[str, Any]
        try:
            difference = future.result()
        except (httpx.TransportError, StoreUnavailable) as error:  # the next look finds out
            log.warning("adapter %s was not loaded: %s", version, error)
            return
        except (adapters.AdapterFailed, StoreError) as error:
            problem = _problem("adapter_failed", "The adapter does not serve", str(error))
            values = {"state": "failed", "error": problem}
            self._say(running, "adapter.failed", version=version, detail=str(error))
        else:
            values = {"state": "ready", "difference": difference}
            self._say(running, "adapter.loaded", version=version, difference=difference)
        running.loaded[version] = time.monotonic()
        with transaction() as session:
            session.execute(
                update(EngineAdapter)
                .where(EngineAdapter.server_id == running.id, EngineAdapter.version_id == version)
                .values(**values)
            )

    # ------------------------------------------------------------ making way, stopping

    def _make_way(self) -> None:
        """Drain the servers on devices that a training waits for."""
        wanted = devices.wanted(self._name)
        for running in self._servers.values():
            if wanted & set(running.devices) and running.state != "draining":
                running.state = "draining"
                running.drain_until = time.monotonic() + DRAIN_SECONDS
                self._update(running, state="draining")

    def _stop_idle(self) -> None:
        for running in list(self._servers.values()):
            if time.monotonic() - running.wanted_at > self._settings.engine_idle_seconds:
                self._stop(running, "nobody asks it")

    def _stop(self, running: Running, reason: str) -> None:
        with transaction() as session:  # nobody is sent there any more
            session.execute(delete(EngineServer).where(EngineServer.id == running.id))
        done = _done(running.server) - running.before
        running.server.stop()
        told = {name: done[name] for name in COUNTED}
        self._say(running, "engine.stopped", reason=reason, **told)
        devices.release(running.id)
        del self._servers[running.spec.key]

    # ------------------------------------------------------------ rows

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = time.monotonic()
        devices.seen(self._name)
        for running in list(self._servers.values()):
            if not devices.renew(running.id):  # Postgres was away for long, and somebody took them
                self._stop(running, "its lease of devices is lost")
        with transaction() as session:
            session.execute(
                update(EngineServer)
                .where(EngineServer.node == self._name)
                .values(seen_at=func.clock_timestamp())
            )

    def _update(self, running: Running, **values: Any) -> None:
        with transaction() as session:
            session.execute(
                update(EngineServer).where(EngineServer.id == running.id).values(**values)
            )

    def _say(self, running: Running, type_: str, **data: Any) -> None:
        """Tell the jobs that want it."""
        told = {"node": self._name, "server": running.id, "model": running.spec.name, **data}
        for job_id in sorted(running.jobs):
            with transaction() as session:
                if session.get(Job, job_id) is not None:
                    emit(session, job_id, type_, told)


def _load(url: str, base: str, version: str, path: str) -> float:
    return adapters.load(url, base, version, folder_of(path))


def _try_out(url: str, base: str, name: str, path: str) -> None:
    adapters.try_out(url, base, name, folder_of(path))


def _done(server: Server) -> Counter[str]:
    """What a server has done in its life; nothing if it does not answer any more."""
    found = server.metrics() or {}
    return Counter({name: int(found.get(f"{name}_total", 0)) for name in COUNTED})


def _demands() -> dict[str, Demand]:
    """What is wanted now, by key."""
    with transaction() as session:
        rows = session.scalars(
            select(EngineDemand).where(EngineDemand.wanted_until > func.clock_timestamp())
        ).all()
    found: dict[str, Demand] = {}
    for row in rows:
        demand = found.setdefault(row.key, Demand(Spec.model_validate(row.spec)))
        if row.adapter is not None:
            demand.adapters[row.version_id] = row.adapter
        if row.job_id:
            demand.jobs.add(row.job_id)
    return found


def _problem(code: str, title: str, detail: str) -> dict[str, Any]:
    return Problem(code=code, title=title, detail=detail[-4000:], fault="system").model_dump(
        mode="json", exclude_none=True
    )
