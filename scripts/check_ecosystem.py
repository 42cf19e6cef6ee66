"""Do the libraries that users bring work with the platform? With the real ones, and a real stack.

The embedded stack runs a small job (LoRA, one iteration) of the shipped seed, and the tests of
tests/ecosystem, in the environment where openai, trl, datasets, peft, inspect_ai, lm_eval, mlflow
and wandb are, ask it.

    make test-ecosystem                          builds .venv-trl first
    python scripts/check_ecosystem.py -k openai  arguments are pytest's
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEED = ROOT / "seeds" / "smallworld"
PYTHON = ROOT / ".venv-trl" / "bin" / "python"
TESTS = ROOT / "tests" / "ecosystem"
RECIPE: dict[str, Any] = {
    "iterations": 1,
    "chunk_size": 8,
    "pair": {"instructions": 32},
    "judge": {"samples": 3},
    "curate": {"preferences": True},
    "train": {
        "method": "lora", "steps": 8, "tokens_per_step": 500, "warmup_steps": 1, "checkpoints": 1,
    },
    "validate": {"instructions": 16},
}  # fmt: skip


def main() -> None:
    """Run the job, then the tests; the status is pytest's."""
    sys.path.insert(0, str(ROOT))
    from selftaught import Client
    from selftaught.stack.handle import Stack

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with (
            Stack(home / "home", generator_workers=1) as stack,
            Client(stack.gateway_url) as client,
        ):
            lines = (SEED / "data" / "instructions.jsonl").read_text().splitlines(keepends=True)
            (home / "prompts.jsonl").write_text("".join(lines[:100]))
            dataset = client.datasets.upload(home / "prompts.jsonl")
            job = client.jobs.create(
                dataset.id, recipe="quickstart", overrides=RECIPE, model="tour"
            ).wait(timeout=600)
            told = {
                "SELFTAUGHT_URL": stack.gateway_url,
                "ECOSYSTEM_JOB": job.id,
                "ECOSYSTEM_SEED": str(SEED),
                "PYTHONPATH": str(ROOT),
                "HF_HOME": str(home / "hf"),
                "TRL_EXPERIMENTAL_SILENCE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "WANDB_MODE": "offline",
                "WANDB_SILENT": "true",
                "WANDB_DIR": str(home),
                "INSPECT_DISPLAY": "none",
                "INSPECT_LOG_DIR": str(home / "inspect"),
                "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
            }
            folders = [f"--rootdir={ROOT}", f"--confcutdir={TESTS}", str(TESTS)]
            plain = ["-q", "-p", "no:cacheprovider", "-o", "addopts="]
            tests = ["-m", "pytest", *plain, *folders, *sys.argv[1:]]
            done = subprocess.run(
                [str(PYTHON), *tests], cwd=home, env={**os.environ, **told}, check=False
            )
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
