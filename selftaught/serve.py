"""uvicorn, which ends with status 0 when it was told to stop and has done so.

python -m selftaught.serve services.api.main:app --port 8080 ..

By itself uvicorn ends what it has begun, within --timeout-graceful-shutdown, and then dies of the
very SIGTERM that asked it to, as if it had not obeyed.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import uvicorn


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)  # what uvicorn puts back, and raises, when it has drained
    uvicorn.main()
