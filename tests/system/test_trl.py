"""What a finished job offers for download trains in TRL (in an environment of its own)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not (ROOT / ".venv-trl" / ".ready").exists(), reason="`make test` or `make check-trl` builds it"
)
def test_the_files_of_a_finished_job_train_in_trl_unchanged(tiny_job: Any, tmp_path: Path) -> None:
    job = tiny_job(iterations=1, pair={"instructions": 80}, curate={"preferences": True})
    job.wait(600)
    for name in ("curate", "preferences"):
        for form in ("jsonl", "parquet"):
            job.download(1, name, tmp_path / f"{name}.{form}", form)
    done = subprocess.run(
        [sys.executable, "scripts/check_trl.py", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SFTTrainer: {'loss'" in done.stdout
    assert done.stdout.count("DPOTrainer: {'loss'") == 2
