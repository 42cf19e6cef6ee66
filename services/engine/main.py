"""The engine process of a node: python -m services.engine.main

Needs SELFTAUGHT_VLLM_PYTHON, the interpreter of the environment that vLLM lives in.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from types import FrameType

from sqlalchemy.exc import DBAPIError

from selftaught import logs
from selftaught.devices import CPU
from selftaught.settings import get_settings
from services.engine.node import Node

log = logging.getLogger("services.engine.main")  # not __main__, which it is run as

TICK_SECONDS = 0.25


def device_names(configured: str | None) -> list[str]:
    """The devices that this node gives: as configured ("0,1,2"), else every GPU, else the CPU."""
    if configured:
        return [name.strip() for name in configured.split(",")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return visible.split(",")
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        count = len([line for line in done.stdout.splitlines() if line.startswith("GPU ")])
        if count:
            return [str(index) for index in range(count)]
    return [CPU]


def main() -> None:
    """Run the node until SIGTERM or SIGINT."""
    logs.setup()
    settings = get_settings()
    if settings.vllm_python is None:
        raise SystemExit("SELFTAUGHT_VLLM_PYTHON is not set: which interpreter has vLLM?")
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    node = Node(settings, device_names(settings.devices))
    log.info("engine ready")
    try:
        while not stop.wait(TICK_SECONDS):
            try:
                node.tick()
            except DBAPIError as error:
                log.warning("Postgres is away: %s", error)
                time.sleep(1.0)
    finally:
        node.close()


if __name__ == "__main__":
    main()
