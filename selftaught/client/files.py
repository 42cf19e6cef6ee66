"""Files on their way to the gateway, and back."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

Progress = Callable[[int, int], object]
"""Is told of bytes sent and of bytes in all."""


class DamagedDownload(OSError):
    """What came is not what the gateway has under this name."""


class Sent(io.FileIO):
    """A file that tells how far it has been read; from its start again when it is sent again."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(path)
        self._progress = progress
        self.total = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; `progress` is told."""
        piece = super().read(-1 if size is None else size) or b""
        if self._progress is not None:
            self._progress(self.tell(), self.total)
        return piece


def child(folder: Path, name: str) -> Path:
    """Where a file of this name lies in the folder; a name that leads elsewhere is an OSError."""
    path = folder / name
    if name in ("", ".", "..") or path.name != name:
        raise OSError(f"the gateway has a file called {name!r}")
    return path


def whole(hashes: Mapping[str, str]) -> str:
    """A version's sha256, from those of its files by name."""
    lines = "".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def name_base(folder: Path, base: str) -> None:
    """Have an adapter name this base model. A version with whole weights has none: ValueError."""
    path = folder / "adapter_config.json"
    if not path.exists():
        raise ValueError("base: this version has whole weights, not an adapter")
    settings = {**json.loads(path.read_text()), "base_model_name_or_path": base}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
