"""The Celery side: a message carries a chunk's id, and a trace's; the handler does the work.

Each service builds its app with `make_app(queue, handlers)`. Early acknowledgement is on purpose:
the lease recovers a lost chunk, the broker never does.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from celery import Celery, Task
from celery.signals import celeryd_init, setup_logging, worker_shutting_down
from sqlalchemy.exc import InternalError, OperationalError

from selftaught import disk, logs, stopping, telemetry, tenancy
from selftaught.contracts import Problem
from selftaught.inference.factory import close_engines
from selftaught.inference.protocol import (
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    ModelLoadError,
)
from selftaught.settings import get_settings
from selftaught.store import StoreError, StoreUnavailable
from selftaught.work.kernel import (
    Apply,
    Heartbeat,
    JobFailure,
    Lease,
    LeaseLost,
    Result,
    claim,
    fail,
    let_go,
    publish,
)

log = logging.getLogger(__name__)

AWAY_DELAY = 60.0
"""Seconds before a chunk is tried again whose endpoint or artifact store was away, or for whose
files there was no room; four times as long each time."""

STOPPING = "its worker is stopping"

_stopping = False
_held: Lease | None = None  # what this process works on: one chunk at a time (solo pool)


@dataclass(frozen=True)
class Handler:
    """`run` works outside any transaction; `apply` joins the one that publishes the result.

    `undo` removes what `run` left outside the result's artifacts, when that was not applied.
    """

    run: Callable[[Lease], Result]
    apply: Apply | None = None
    undo: Callable[[Result], None] = lambda result: None


def celery_app(queue: str) -> Celery:
    """A Celery app that sends to or serves one queue."""
    app = Celery(f"selftaught-{queue}", broker=get_settings().redis_url)
    app.conf.update(
        task_default_queue=queue,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=True,
        worker_enable_remote_control=False,
        worker_send_task_events=get_settings().celery_events,
        broker_connection_retry_on_startup=True,
        # A worker that lost Redis exits and is started afresh: a reconnected one can go deaf.
        broker_connection_retry=False,
        broker_transport_options={"socket_connect_timeout": 5, "socket_keepalive": True},
        task_publish_retry=False,
    )
    return app


def task_name(queue: str) -> str:
    return f"selftaught.{queue}.run_chunk"


def make_app(queue: str, handlers: Mapping[str, Handler]) -> Celery:
    """The Celery app of a service: one task that leases a chunk and hands it to its handler."""
    app = celery_app(queue)
    owner = f"{get_settings().role}@{socket.gethostname()}:{os.getpid()}"

    @app.task(name=task_name(queue), bind=True)  # type: ignore[untyped-decorator]
    def run_chunk(task: Task, chunk_id: str) -> None:
        run_one(chunk_id, owner, handlers, task.request.get(telemetry.HEADER))

    return app


def run_one(
    chunk_id: str, owner: str, handlers: Mapping[str, Handler], traceparent: str | None = None
) -> bool:
    """Lease, work, apply. True if this call's result was applied.

    `traceparent`: of the message that announced the chunk.
    """
    lease = claim(chunk_id, owner)
    if lease is None:
        return False
    ids = lease.ids
    told = {f"selftaught.{name}": value for name, value in ids.items() if value is not None}
    with (
        tenancy.inside(lease.project),
        logs.bound(**ids),
        telemetry.span(f"process {lease.kind}", "consumer", traceparent, told) as span,
    ):
        applied = _work(lease, handlers)
        span.set_attribute("selftaught.applied", applied)
        if not applied:
            telemetry.failed(span)
        return applied


def _work(lease: Lease, handlers: Mapping[str, Handler]) -> bool:
    """Work on a claimed chunk, as its project. True if the result was applied."""
    global _held
    chunk_id = lease.chunk_id
    _held = lease
    if _stopping:  # told to stop before the chunk was ours: the message has to be sent again
        let_go(lease, STOPPING)
        return False
    # What is loaded by now stays: the collector need not walk over torch and all again and again
    # while a chunk makes many small objects (it took a sixth of a judging worker's time).
    gc.collect()
    gc.freeze()
    handler = handlers[lease.kind]
    result: Result | None = None
    applied = called_off = False
    try:
        with Heartbeat(lease):
            with stopping.under(lease.lost, lease.token):
                result = handler.run(lease)
            applied = publish(lease, result, handler.apply)
        log.info("%s %s %s", lease.kind, chunk_id, "applied" if applied else "discarded")
        return applied
    except (LeaseLost, stopping.Stopped):
        log.warning("%s %s: lease lost or job ended", lease.kind, chunk_id)
        let_go(lease)
        called_off = True
    except JobFailure as failure:
        log.error("%s %s: %s", lease.kind, chunk_id, failure)
        fail(lease, failure.problem, retry=False)
    except ModelLoadError as error:
        log.error("%s %s: model cannot be loaded: %s", lease.kind, chunk_id, error.reason)
        fail(lease, _problem("model_load_failed", "The model cannot be loaded", error), retry=False)
    except EngineRefused as error:
        log.error("%s %s: endpoint refused: %s", lease.kind, chunk_id, error)
        problem = _problem("endpoint_refused", "The inference endpoint refused", error)
        fail(lease, problem, retry=False)
    except EngineFailed as error:
        log.error("%s %s: engine failed: %s", lease.kind, chunk_id, error)
        fail(lease, error.problem, retry=False)
    except EngineUnavailable as error:
        log.error("%s %s: endpoint unavailable: %s", lease.kind, chunk_id, error)
        problem = _problem("endpoint_unavailable", "The endpoint is away", error, "system")
        fail(lease, problem, retry=True, delay=AWAY_DELAY * 4 ** (lease.attempt - 1))
    except StoreError as error:
        log.error("%s %s: %s: %s", lease.kind, chunk_id, error.title, error)
        away = isinstance(error, StoreUnavailable)
        problem = _problem(error.code, error.title, error, "system")
        delay = AWAY_DELAY * 4 ** (lease.attempt - 1) if away else 0.0
        fail(lease, problem, retry=away, delay=delay)
    except (OperationalError, InternalError):
        raise  # Postgres is away: nothing can be reported; the lease runs out and is reaped
    except Exception as error:
        log.exception("%s %s failed", lease.kind, chunk_id)
        if disk.is_full(error):
            problem = _problem("storage_full", "There is no room for a file", error, "system")
            delay = AWAY_DELAY * 4 ** (lease.attempt - 1)
            fail(lease, problem, retry=True, delay=delay)
            return False
        told = RuntimeError(f"{type(error).__name__}: {error}")
        problem = _problem("internal_error", "A worker's step failed", told, "system")
        fail(lease, problem, retry=True)
    finally:
        _held = None
        if result is not None and not applied:
            handler.undo(result)
        if called_off:  # who cancels or pauses a job wants the GPU's memory, too
            close_engines()
            gc.collect()
    return False


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _on_start(**_: object) -> None:
    logs.setup()
    telemetry.setup()


@setup_logging.connect  # type: ignore[untyped-decorator]
def _on_setup_logging(**_: object) -> None:
    """With somebody here, Celery leaves logging alone."""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _on_shutdown(**_: object) -> None:
    """A worker told to stop gives its chunk back at once, so that another one goes on with it.

    In a thread, because the signal interrupts whatever the main thread does, transactions too.
    """
    global _stopping
    _stopping = True
    if _held is not None:
        threading.Thread(target=let_go, args=[_held, STOPPING], name="let-go").start()


def _problem(
    code: str, title: str, error: Exception, fault: Literal["user", "system"] = "user"
) -> Problem:
    return Problem(code=code, title=title, detail=str(error)[:500], fault=fault)
