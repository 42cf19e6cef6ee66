"""A process for tests of the stack: it writes "up" and then does what its arguments say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def query_and_leave(target: str) -> None:
    """On SIGTERM: ask Postgres something, write the answer to `target`, end."""
    import psycopg

    def handle(number: int, frame: object) -> None:
        url = os.environ["DATABASE_URL"].replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT 'still there'").fetchone()
        assert row is not None
        Path(target).write_text(row[0])
        sys.exit(0)

    signal.signal(signal.SIGTERM, handle)


def sleeper(new_session: bool) -> int:
    """A child of our own that would sleep for an hour."""
    command = [sys.executable, "-c", "import time; time.sleep(3600)"]
    return subprocess.Popen(command, start_new_session=new_session).pid


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "wait"
    if what == "die":
        write("I cannot work like this")
        sys.exit(7)
    if what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what == "query-on-stop":
        query_and_leave(sys.argv[2])
    if what == "family":
        write(f"child {sleeper(new_session=False)}")
        write(f"child {sleeper(new_session=True)}")
    write("up")
    time.sleep(3600)


if __name__ == "__main__":
    main()
