"""The parent's side of the training process: stray output and a cut line never hang it."""

from __future__ import annotations

import os
import queue
from typing import Any

from services.trainer.process import _read


def test_what_is_no_event_is_passed_over_and_the_end_is_always_told() -> None:
    read, write = os.pipe()
    os.write(write, b'Loading shards\n{"type": "step", "step": 1}\n{"type": "done", "resu')
    os.close(write)
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    with os.fdopen(read, "rb") as stream:
        _read(stream, lines)
    assert [lines.get_nowait() for _ in range(2)] == [{"type": "step", "step": 1}, None]
    assert lines.empty()
