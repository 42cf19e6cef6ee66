"""``python -m selftaught.stack CONFIG``: the supervisor in a process of its own (see Stack)."""

from __future__ import annotations

import os
import signal
import sys
import threading

from selftaught.stack.spec import AlreadyRunning, StackConfig, StackError


def _stop_when_input_closes() -> None:
    """Read standard input to its end, which comes when whoever started us is gone."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """0 after a clean stop, 1 if the stack failed, 3 if another runs in this home."""
    from selftaught.stack.supervisor import Supervisor

    config = StackConfig.from_json(sys.argv[1])
    supervisor = Supervisor(config, report=_say)
    if config.tied:
        threading.Thread(target=_stop_when_input_closes, daemon=True).start()
    try:
        supervisor.run()
    except AlreadyRunning as error:
        _say(str(error))
        return 3
    except StackError as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
