"""The peers' own virtual environments: made when they are first wanted, each from its own file.

`benchmarks/peers/NAME.txt` pins everything that a peer runs with; its environment is
`.venv-peers/NAME`. What a peer executes is a script `NAME_*.py` here, which has nothing of this
project to import.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class PeerMissing(Exception):
    """A peer that cannot be installed here; its text says why."""


def python(name: str) -> Path:
    """The Python of a peer's environment. Raises PeerMissing."""
    pins = HERE / f"{name}.txt"
    home = ROOT / ".venv-peers" / name
    found, stamp = home / "bin" / "python", home / ".ready"
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return found
    if not found.exists():
        _run([sys.executable, "-m", "venv", str(home)])
    lines = pins.read_text().splitlines()
    # torch through pip, which knows where a CPU build lies; uv does the rest, fast.
    torch = [line for line in lines if line.startswith("torch==")]
    _run(
        [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *torch, "uv"]
    )
    install = [str(found), "-m", "uv", "pip", "install", "--quiet", "--no-deps"]
    _run([*install, "-p", str(found), "-r", str(pins)])
    stamp.write_text(wanted)
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise PeerMissing((done.stderr.strip().splitlines() or ["no reason given"])[-1][:300])
