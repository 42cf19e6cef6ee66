"""Is the client light? Its wheel is built and installed alone, in a fresh environment.

Prints what that took and what importing it takes, with the aims beside (timings decide nothing: a
busy machine is no failure). Fails if anything of the services comes with it, or if the client or
the command line do not work without them.

    make check-client
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = ("torch", "fastapi", "starlette", "sqlalchemy", "celery", "redis", "numpy", "aiohttp")
INSTALL_SECONDS, IMPORT_SECONDS = 10.0, 0.5
IMPORTS = 5
IMPORT = f"""
import time
began = time.process_time()
import selftaught
selftaught.Client, selftaught.AsyncClient
print(time.process_time() - began)
import sys
found = {set(FORBIDDEN)!r} & sys.modules.keys()
assert not found, f"imported: {{found}}"
"""
WITHOUT_A_GATEWAY = """
import httpx, selftaught
from pathlib import Path
assert "site-packages" in selftaught.__file__, selftaught.__file__
assert Path(selftaught.__file__).with_name("py.typed").exists()
with selftaught.Client("http://127.0.0.1:1", retries=0) as client:
    try:
        client.judge("i", "a", "b")
    except httpx.ConnectError:
        print("a call without a gateway: ConnectError")
"""


def run(*command: str | Path) -> str:
    """What a command prints. Raises CalledProcessError."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Build, install, look, and import."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "uv", "build", "--wheel", "-q", "-o", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
            wheel, "-c", ROOT / "constraints.txt")  # fmt: skip
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime
        print(
            f"installed by pip in {time.monotonic() - began:.1f} s, {cpu:.1f} s of CPU "
            f"(aim: {INSTALL_SECONDS:.0f} s)"
        )
        listed = run(python, "-m", "pip", "list", "--disable-pip-version-check", "--format=freeze")
        there = {line.partition("==")[0].lower() for line in listed.splitlines()} - {"pip"}
        print(f"{len(there)} packages: {', '.join(sorted(there))}")
        if wrong := there & set(FORBIDDEN):
            sys.exit(f"installed with it: {', '.join(sorted(wrong))}")
        run(python, "-c", IMPORT)  # writes the bytecode
        seconds = [float(run(python, "-c", IMPORT)) for _ in range(IMPORTS)]
        print(
            f"imported with {statistics.median(seconds):.2f} s of CPU, median of {IMPORTS} "
            f"(aim: {IMPORT_SECONDS} s)"
        )
        print(run(python, "-c", WITHOUT_A_GATEWAY), end="")
        run(python.with_name("selftaught"), "jobs", "--help")


if __name__ == "__main__":
    main()
