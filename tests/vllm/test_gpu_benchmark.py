"""benchmarks/gpu.py measures vLLM, too: its whole path on a tiny model."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.vllm.conftest import VLLM

pytestmark = pytest.mark.vllm


def test_vllm_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "tiny"],
        env={**os.environ, "SELFTAUGHT_VLLM_PYTHON": str(VLLM)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = re.findall(r"^\| tiny \| ([\d,]+) \| ([\d,]+) \|$", done.stdout, re.M)
    assert all(int(speed.replace(",", "")) > 0 for speed in row)
