"""Makes selftaught/client/_sync from selftaught/client/_async: the client is written once.

    python -m scripts.unasync           writes the files
    python -m scripts.unasync --check   says which ones are not what this makes; status 1

Names lose their Async, and words of asynchronous Python become those of the other one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[1] / "selftaught" / "client"
SOURCE, TARGET = CLIENT / "_async", CLIENT / "_sync"
HEADER = "# Made from ../_async by scripts/unasync.py (make unasync): change that one.\n"
WORDS = {
    r"\basync (def|with|for) ": r"\1 ",
    r"\bawait ": "",
    r"\bAsync([A-Z]\w*)": r"\1",
    r"\basynccontextmanager\b": "contextmanager",
    r"\b__aenter__\b": "__enter__",
    r"\b__aexit__\b": "__exit__",
    r"\baclose\b": "close",
    r"\baread\b": "read",
    r"\baiter_bytes\b": "iter_bytes",
    r"\baclosing\b": "closing",
    r"\banyio\b": "time",
    r"\b_async\b": "_sync",
}


def made() -> dict[Path, str]:
    """Every file of the synchronous client, as it should be. Raises CalledProcessError."""
    found = {}
    for path in sorted(SOURCE.glob("*.py")):
        text = path.read_text()
        for pattern, replacement in WORDS.items():
            text = re.sub(pattern, replacement, text)
        if path.name == "__init__.py":
            text = '"""The synchronous client, made from `_async` by scripts/unasync.py."""\n'
        found[TARGET / path.name] = _formatted(HEADER + text, TARGET / path.name)
    return found


def stale() -> list[Path]:
    """Files that are not what this makes, and such that it does not make."""
    wanted = made()
    there = {path: path.read_text() for path in TARGET.glob("*.py")}
    return sorted(path for path in wanted.keys() | there if wanted.get(path) != there.get(path))


def _formatted(text: str, path: Path) -> str:
    # What is ours is said, or it would depend on which of these files are there already.
    ours = 'lint.isort.known-first-party=["selftaught"]'
    for command in (["check", "--fix", "--select=I", "--config", ours], ["format"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "-q", "--stdin-filename", str(path), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        old = stale()
        for path in old:
            print(f"{path.relative_to(CLIENT.parents[1])} is not what scripts/unasync.py makes")
        sys.exit(1 if old else 0)
    TARGET.mkdir(exist_ok=True)
    wanted = made()
    for path in TARGET.glob("*.py"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
