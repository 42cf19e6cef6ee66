"""The end of the process that reads a Parquet file: Arrow aborts an interpreter there at times."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from selftaught import parquet

ABORTS = """
import atexit, os, sys

if "selftaught.parquet_child" in sys.orig_argv:
    atexit.register(os.abort)
"""


def test_what_was_read_is_good_however_the_interpreter_would_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ABORTS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    file = io.BytesIO()
    parquet.write(lambda: iter([{"n": 1}, {"n": 2}]), file)
    assert list(parquet.rows(file, 10_000)) == [{"n": 1}, {"n": 2}]
    with pytest.raises(parquet.NotParquet, match="not a readable Parquet file: "):
        list(parquet.rows(io.BytesIO(b"PAR1 and then nothing of it PAR1"), 10_000))
