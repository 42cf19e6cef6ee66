"""A page's shell and its Python, which remember what was done before."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

DRIVER = """
import contextlib, os, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    source, out, env, cwd = line.rstrip("\\n").split("\\t")
    os.environ.update(
        one.split("=", 1) for one in open(env).read().split("\\0") if "=" in one
    )
    os.chdir(open(cwd).read().rstrip("\\n"))
    status = 0
    with open(out, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            exec(compile(open(source).read(), source, "exec"), names)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
    print("done", status, flush=True)
"""


class Failed(AssertionError):
    """A command that did not end as it should have; has all it printed."""


class Session:
    """One shell, and one Python beside it, in a folder. `seconds`: for each command."""

    def __init__(self, folder: Path, env: Mapping[str, str], seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self._files = folder / ".session"
        self._files.mkdir()
        self._env = dict(env)
        self._count = 0
        self._shell = self._start(["bash", "--norc", "--noprofile"])
        self._python: subprocess.Popen[str] | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in filter(None, (self._shell, self._python)):
            with suppress(ProcessLookupError):  # it and all that it started may have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def bash(self, text: str, status: int = 0) -> str:
        """What a piece of shell prints; raises Failed if it does not end with `status`."""
        source, out = self._new("sh"), self._new("out")
        source.write_text(text)
        strict = "set -euo pipefail;" if status == 0 else "set +e;"
        line = f"{strict} source {source} >{out} 2>&1 </dev/null; echo done $?; set +euo pipefail\n"
        return self._ask(self._shell, line, out, status, text)

    def python(self, text: str, status: int = 0) -> str:
        """What a piece of Python prints, with the shell's exported variables and folder."""
        if self._python is None:
            self._python = self._start([sys.executable, "-u", "-c", DRIVER])
        source, out, env, cwd = (self._new(kind) for kind in ("py", "out", "env", "cwd"))
        self.bash(f"env -0 > {env}; pwd > {cwd}\n")
        source.write_text(text)
        line = "\t".join(map(str, (source, out, env, cwd))) + "\n"
        return self._ask(self._python, line, out, status, text)

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _new(self, kind: str) -> Path:
        self._count += 1
        return self._files / f"{self._count}.{kind}"

    def _ask(
        self, process: subprocess.Popen[str], line: str, out: Path, status: int, text: str
    ) -> str:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and so gives no answer
            process.stdin.write(line)
            process.stdin.flush()
        said = self._answer(process)
        printed = out.read_text(errors="replace") if out.exists() else ""
        if said != f"done {status}":
            raise Failed(
                f"{text}\n--- {said or 'the shell ended'}, not {status}; printed:\n{printed}"
            )
        return printed

    def _answer(self, process: subprocess.Popen[str]) -> str:
        """The line that it writes when it is done; '' if it has ended instead."""
        assert process.stdout is not None
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([process.stdout], [], [], 1.0)
            if ready:
                return process.stdout.readline().strip()
        return f"no end after {self.seconds:.0f} s"
