"""The training process: its output folder is whole or absent, its failures have names."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from selftaught.inference import Request, Sampling
from selftaught.inference.local import LocalEngine
from services.trainer import checkpoints
from services.trainer.checkpoints import Checkpoint
from services.trainer.child import report
from tests.trainer.conftest import lesson, write

ROOT = Path(__file__).parents[2]
SETTINGS = {"learning_rate": 8e-3, "warmup_steps": 2, "steps": 24, "tokens_per_step": 900}


def spec(tmp_path: Path, base: Path, **changes: Any) -> dict[str, Any]:
    rows, pairs = lesson(12)
    return {
        "base_model": str(base),
        "sft_path": str(write(tmp_path / "sft.jsonl", rows)),
        "heldout_paths": [
            str(write(tmp_path / "h0.jsonl", pairs[:5])),
            str(write(tmp_path / "h1.jsonl", pairs[5:])),
        ],
        "template": "smallworld",
        "output_dir": str(tmp_path / "made" / "model"),
        "settings": {**SETTINGS, "checkpoints": 3},
        "max_tokens": 8,
        "seed": 1,
        **changes,
    }


def start(tmp_path: Path, given: dict[str, Any]) -> subprocess.Popen[str]:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(given))
    return subprocess.Popen(
        [sys.executable, "-m", "services.trainer.child", str(file)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


Events = list[dict[str, Any]]
Run = Callable[[dict[str, Any]], tuple[int, Events]]


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a spec in this process: (exit status, events)."""

    def here(given: dict[str, Any]) -> tuple[int, Events]:
        file = tmp_path / "spec.json"
        file.write_text(json.dumps(given))
        capfdbinary.readouterr()
        status = report(file)
        return status, [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

    return here


def leftovers(tmp_path: Path) -> list[str]:
    folder = tmp_path / "made"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_run_publishes_its_best_checkpoint(tmp_path: Path, base: Path) -> None:
    child = start(tmp_path, spec(tmp_path, base))
    assert child.stdout is not None
    events = [json.loads(line) for line in child.stdout]
    assert child.wait() == 0
    kinds = [event["type"] for event in events]
    assert kinds == ["step"] * 24 + ["checkpoint"] * 3 + ["done"]
    result = events[-1]["result"]
    assert [c["step"] for c in result["checkpoints"]] == [8, 16, 24]
    assert result["heldout_pairs"] == 6  # every second one; the gate has the others
    best = max(result["checkpoints"], key=lambda c: (c["strict_accuracy"], c["mean_accuracy"]))
    assert result["checkpoint"]["strict_accuracy"] == best["strict_accuracy"]
    assert result["steps"] == len(result["losses"]) == 24
    assert result["final_loss"] == result["losses"][-1] < result["losses"][0]
    assert leftovers(tmp_path) == ["model"]
    made = tmp_path / "made" / "model"
    AutoModelForCausalLM.from_pretrained(made)  # a plain transformers folder
    rows, _ = lesson(1)
    [[answer]] = LocalEngine(made).generate(
        [Request(rows[0]["prompt"], 0)], Sampling(temperature=0, max_tokens=8)
    )
    assert answer.text.startswith("[[")
    assert answer.finished


def test_an_adapter_folder_loads_on_its_base(tmp_path: Path, base: Path, run: Run) -> None:
    settings = {**SETTINGS, "method": "lora", "steps": 4, "learning_rate": 5e-2}
    code, events = run(spec(tmp_path, base, settings=settings))
    assert (code, events[-1]["type"]) == (0, "done")
    made = tmp_path / "made" / "model"
    assert (made / "adapter_model.safetensors").exists()
    assert not (made / "model.safetensors").exists()
    ask = [Request([{"role": "user", "content": "hello"}], 0)]
    greedy = Sampling(temperature=0, max_tokens=20)
    assert LocalEngine(made).generate(ask, greedy) != LocalEngine(base).generate(ask, greedy)


def test_the_same_spec_gives_the_same_model(tmp_path: Path, base: Path, run: Run) -> None:
    files = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        assert run(spec(folder, base, settings={**SETTINGS, "steps": 3}))[0] == 0
        files.append((folder / "made/model/model.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"base_model": "/nowhere"}, "model_load_failed"),
        ({"sft_path": "empty.jsonl"}, "bad_data"),
        ({"sft_path": "broken.jsonl"}, "bad_data"),
        ({"heldout_paths": ["empty.jsonl"]}, "bad_data"),
        ({"settings": {**SETTINGS, "learning_rate": 1e30, "warmup_steps": 0}}, "nan_loss"),
        ({"settings": {"stepz": 3}}, "bad_spec"),
    ],
)
def test_failures_have_codes_and_leave_nothing(
    tmp_path: Path, base: Path, run: Run, changes: dict[str, Any], code: str
) -> None:
    write(tmp_path / "empty.jsonl", [])
    (tmp_path / "broken.jsonl").write_text('{"prompt": []}\n')
    for key in ("sft_path", "heldout_paths"):
        if key == "sft_path" and key in changes:
            changes = {**changes, key: str(tmp_path / changes[key])}
        elif key in changes:
            changes = {**changes, key: [str(tmp_path / name) for name in changes[key]]}
    status, events = run(spec(tmp_path, base, **changes))
    assert status == 1
    assert events[-1]["type"] == "error"
    assert events[-1]["code"] == code
    assert events[-1]["message"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("how", ["terminate", "parent gone"])
def test_it_can_be_stopped_and_cleans_up(tmp_path: Path, base: Path, how: str) -> None:
    child = start(tmp_path, spec(tmp_path, base, settings={**SETTINGS, "steps": 100_000}))
    assert child.stdout is not None
    assert child.stdin is not None
    assert json.loads(child.stdout.readline())["type"] == "step"
    if how == "terminate":
        child.send_signal(signal.SIGTERM)
    else:
        child.stdin.close()
    assert child.wait(timeout=120) == 128 + signal.SIGTERM
    assert leftovers(tmp_path) == []


def test_an_existing_folder_is_never_overwritten(tmp_path: Path, base: Path, run: Run) -> None:
    made = tmp_path / "made" / "model"
    made.mkdir(parents=True)
    status, events = run(spec(tmp_path, base))
    assert (status, events[-1]["code"]) == (1, "output_exists")
    assert list(made.iterdir()) == []


def test_checkpoints_are_spread_evenly_and_end_with_the_last_step() -> None:
    assert checkpoints.steps(150, 3) == [50, 100, 150]
    assert checkpoints.steps(7, 2) == [4, 7]
    assert checkpoints.steps(1, 5) == [1]


def test_the_best_checkpoint_wins_and_the_later_one_of_equals() -> None:
    def point(step: int, strict: float, mean: float) -> Checkpoint:
        return Checkpoint(step, Path(), {"strict_accuracy": strict, "mean_accuracy": mean})

    assert checkpoints.choose([point(1, 0.8, 0.8), point(2, 0.7, 0.9)]).step == 1
    assert checkpoints.choose([point(1, 0.8, 0.8), point(2, 0.8, 0.9)]).step == 2
    assert checkpoints.choose([point(1, 0.8, 0.9), point(2, 0.8, 0.9)]).step == 2
