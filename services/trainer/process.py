"""Runs the training child: its progress becomes events, its end a result or a typed failure.

A child process frees all its memory for certain, may be killed at any time, and keeps CUDA out of
the Celery worker. Its standard input is a pipe that only this process holds: when the worker dies,
however it dies, the child reads the end of it and stops; and when the worker is frozen, so that its
lease is lost and it does not know, the child hears nothing more and stops as well.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import orjson

from selftaught import logs, telemetry
from selftaught.devices import CPU
from selftaught.work.kernel import Lease, LeaseLost
from services.trainer.child import Spec

log = logging.getLogger(__name__)

SAY_EVERY = 2.0  # seconds between progress events
NUDGE_EVERY = 1.0  # seconds between signs of life for the child


class ChildFailed(Exception):
    """The child ended with an error that another attempt would not cure."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class ChildLost(Exception):
    """The child was killed; the chunk may be tried again."""


def run_child(spec: Spec, work: Path, lease: Lease, devices: Sequence[str] = ()) -> dict[str, Any]:
    """Train as `spec` says, on these GPUs, and return the child's result.

    Raises ChildFailed, ChildLost, or LeaseLost when the job was cancelled or the lease is gone.
    """
    spec_file = work / "spec.json"
    spec_file.write_text(spec.model_dump_json())
    child = subprocess.Popen(
        [sys.executable, "-m", "services.trainer.child", str(spec_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            **_visible(devices),
            **logs.environment(),
            **telemetry.environment(),
        },
    )
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
    reader.start()
    ended = threading.Event()
    nudger = threading.Thread(target=_nudge, args=(child.stdin, ended), daemon=True)
    nudger.start()
    try:
        lease.say("train.started", {"pid": child.pid})
        return _follow(child, lines, lease)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        ended.set()
        nudger.join()
        reader.join()


def _nudge(stream: IO[bytes] | None, ended: threading.Event) -> None:
    """Tell the child that this process lives, until it has ended."""
    assert stream is not None
    with suppress(BrokenPipeError):
        while not ended.wait(NUDGE_EVERY):
            stream.write(b"\n")
            stream.flush()


def _visible(devices: Sequence[str]) -> dict[str, str]:
    """Only the leased GPUs; the CPU, and a node without leases, need no word."""
    gpus = [name for name in devices if not name.startswith(CPU)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}


def _read(stream: IO[bytes] | None, lines: queue.Queue[dict[str, Any] | None]) -> None:
    """Events to `lines`, then None; what is no event (a child killed in mid-line) is logged."""
    assert stream is not None
    try:
        for line in stream:
            try:
                lines.put(orjson.loads(line))
            except orjson.JSONDecodeError:
                log.warning("not an event of the training process: %r", line[:200])
    finally:
        lines.put(None)


def _follow(
    child: subprocess.Popen[bytes], lines: queue.Queue[dict[str, Any] | None], lease: Lease
) -> dict[str, Any]:
    result: dict[str, Any] | None = None
    failure: ChildFailed | None = None
    said = time.monotonic()
    while True:
        try:
            message = lines.get(timeout=0.2)
        except queue.Empty:
            _stop_if_lost(child, lease)
            continue
        _stop_if_lost(child, lease)
        if message is None:
            break
        kind = message.pop("type")
        if kind == "done":
            result = message["result"]
        elif kind == "error":
            failure = ChildFailed(message["code"], message["message"])
        elif kind in ("checkpoint", "resumed") or time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            lease.say(f"train.{kind}", message)
    code = child.wait()
    if failure is not None:
        raise failure
    if result is None or code != 0:
        raise ChildLost(f"the training process ended with code {code}")
    return result


def _stop_if_lost(child: subprocess.Popen[bytes], lease: Lease) -> None:
    if lease.lost.is_set():
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
        raise LeaseLost(lease.chunk_id)
