"""The platform's processes, as data: what each runs and with which environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from selftaught.stack.spec import ProcessSpec, StackConfig, Tier


def _worker(name: str, queue: str, env: dict[str, str]) -> ProcessSpec:
    # Solo pool, no gossip: one piece of work per process, and leases in Postgres, not Celery's
    # own bookkeeping, say who is alive.
    options = ("-Q", queue, "--pool", "solo", "--loglevel", "INFO", "-n", f"{name}@%h")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    celery = (sys.executable, "-m", "celery", "-A", f"services.{queue}.tasks", "--quiet", "worker")
    return ProcessSpec(name, (*celery, *options, *quiet), env=env, ready_text=" ready.")


def _uvicorn(app: str, port: int, *options: str) -> tuple[str, ...]:
    # Event streams stay open for as long as the client likes: bound what a stop waits for.
    where = ["--host", "127.0.0.1", "--port", str(port), "--timeout-graceful-shutdown", "5"]
    where += ["--no-server-header", "--http", "selftaught.protocol:Http"]
    return (sys.executable, "-m", "selftaught.serve", app, *where, *options)


def evaluator_names(config: StackConfig) -> list[str]:
    """Names of the processes that answer /judge: evaluator, evaluator2, .."""
    return ["evaluator", *(f"evaluator{number}" for number in range(2, config.evaluators + 1))]


def services(
    config: StackConfig, gateway_port: int, evaluator_ports: Sequence[int]
) -> list[ProcessSpec]:
    """Everything but Postgres and Redis, in start order."""
    # One thread a process, unless the user says otherwise: processes share the cores, and the
    # threads of a small model that wait for a core which another process holds lose more than
    # they gain.
    cores = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or "1"}
    gateway = f"http://127.0.0.1:{gateway_port}"
    specs = [
        ProcessSpec(
            "gateway",
            _uvicorn("services.api.main:app", gateway_port),
            env={"SELFTAUGHT_OPEN": "true"},  # it listens on loopback only
            tier=Tier.SERVICE,
            url=gateway,
            ready_url=f"{gateway}/readyz",
        ),
        *(
            ProcessSpec(
                name,
                # Every call is in the gateway's log already.
                _uvicorn("services.evaluator.main:app", port, "--no-access-log"),
                env=cores,
                tier=Tier.SERVICE,
                url=f"http://127.0.0.1:{port}",
                ready_url=f"http://127.0.0.1:{port}/readyz",
            )
            for name, port in zip(evaluator_names(config), evaluator_ports, strict=True)
        ),
        ProcessSpec(
            "relay",
            (sys.executable, "-m", "selftaught.work.relay"),
            tier=Tier.SERVICE,
            ready_text="relay ready",
        ),
        ProcessSpec(
            "webhooks",
            (sys.executable, "-m", "selftaught.work.webhooks"),
            tier=Tier.SERVICE,
            stop_seconds=30.0,  # requests under way come to their end
            ready_text="webhooks ready",
        ),
        ProcessSpec(
            "janitor",
            (sys.executable, "-m", "selftaught.keeping.janitor"),
            ready_text="janitor ready",
        ),
    ]
    for number in range(1, config.generator_workers + 1):
        specs.append(_worker(f"generator{number}", "generator", cores))
    for number in range(1, config.trainer_workers + 1):
        specs.append(_worker(f"trainer{number}", "trainer", cores))
    specs.append(_worker("evaluator-worker", "evaluator", cores))
    if config.env.get("SELFTAUGHT_VLLM_PYTHON") or os.environ.get("SELFTAUGHT_VLLM_PYTHON"):
        command = (sys.executable, "-m", "services.engine.main")
        # It stops its vLLM servers before it ends, and each may take a while.
        specs.append(ProcessSpec("engine", command, ready_text="engine ready", stop_seconds=60.0))
    return specs


def project_root() -> Path:
    """The folder that holds selftaught/, services/ and migrations/: a checkout or site-packages."""
    return Path(__file__).resolve().parents[2]


def migrations() -> ProcessSpec:
    """``alembic upgrade head``; runs to its end before any service starts."""
    ini = project_root() / "migrations" / "alembic.ini"
    command = (sys.executable, "-m", "alembic", "-c", str(ini), "upgrade", "head")
    return ProcessSpec("migrations", command, tier=Tier.SERVICE)
