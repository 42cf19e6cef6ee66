"""The janitor: collects garbage at its start and every SELFTAUGHT_GC_SECONDS, until SIGTERM.

Any number may run; one at a time works. With a store every node with a home has one of its own.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from selftaught import logs
from selftaught.keeping.collect import collect
from selftaught.keeping.locks import Held
from selftaught.settings import get_settings
from selftaught.store import StoreError

log = logging.getLogger("selftaught.keeping.janitor")  # not __main__, which it is run as


def run_once() -> None:
    """One collection, told to the log; what stops it is told, too, and the next one goes on."""
    try:
        report = collect()
    except Held as held:
        log.info("nothing collected: %s", held)
    except (SQLAlchemyError, StoreError, OSError) as error:
        log.warning("the collection ended early: %s: %s", type(error).__name__, error)
    else:
        for what, (number, size) in report.removed.items():
            if number:
                log.info("removed %s: %d, %d bytes", what, number, size)


def main() -> None:
    """Loop until SIGTERM or SIGINT."""
    logs.setup()
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    log.info("janitor ready")
    while not stop.is_set():
        run_once()
        stop.wait(get_settings().gc_seconds)


if __name__ == "__main__":
    main()
