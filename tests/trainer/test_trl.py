"""What curation publishes loads in `datasets` and trains in TRL (in an environment of its own)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not (ROOT / ".venv-trl" / ".ready").exists(), reason="`make test` or `make check-trl` builds it"
)
def test_examples_and_preferences_train_in_trl_unchanged() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/check_trl.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SFTTrainer: {'loss'" in done.stdout
    assert done.stdout.count("DPOTrainer: {'loss'") == 2
