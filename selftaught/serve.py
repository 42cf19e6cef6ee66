"""uvicorn, which ends with status 0 when it was told to stop and has done so.

python -m selftaught.serve services.api.main:app --port 8080 ..

By itself uvicorn ends what it has begun, within --timeout-graceful-shutdown, and then dies of the
very SIGTERM that asked it to, as if it had not obeyed. Its logs are written as all others are
(selftaught/logs.py).
"""

from __future__ import annotations

import gc
import signal
import sys
from importlib import import_module
from types import FrameType

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from selftaught import logs, telemetry


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    logs.setup()
    telemetry.setup()
    LOGGING_CONFIG.update(incremental=True, handlers={}, loggers={})  # leaves what is set up alone
    signal.signal(signal.SIGTERM, _end)  # what uvicorn puts back, and raises, when it has drained
    import_module(sys.argv[1].partition(":")[0])
    # Code, routes and contracts, some 190,000 objects, stay as long as the process. Each full
    # collection would look at all of them; it passes by what is frozen.
    gc.freeze()
    uvicorn.main()
