"""Files on their way to the gateway."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[int, int], object]
"""Is told of bytes sent and of bytes in all."""


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
