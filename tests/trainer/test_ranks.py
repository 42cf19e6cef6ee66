"""Several processes train one model: losses and weights as of one, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from services.trainer import child
from tests.trainer.conftest import lesson, preferences, write
from tests.trainer.test_child import LONG, SETTINGS, Events, leftovers, spec, start

SHORT = {**SETTINGS, "steps": 5, "micro_batch_tokens": 200, "checkpoints": 1}
LORA = {"method": "lora", "learning_rate": 2e-2}
DPO = {"objective": "sft_dpo", "learning_rate": 2e-3}


def follow(tmp_path: Path, given: dict[str, Any]) -> Events:
    with start(tmp_path, given) as child:
        assert child.stdout is not None
        return [json.loads(line) for line in child.stdout]


def trained(tmp_path: Path, base: Path, name: str, **settings: Any) -> dict[str, Any]:
    """The result of a run, with the tensors that it published."""
    folder = tmp_path / name
    folder.mkdir()
    given = spec(folder, base, settings={**SHORT, **settings})
    if "objective" in settings:
        given["examples_paths"] = [str(write(folder / "pairs.jsonl", preferences(12)))]
    result = child.run(child.Spec.model_validate(given))
    assert leftovers(folder) == ["model"]
    [weights] = (folder / "made" / "model").glob("*model.safetensors")
    return {**result, "tensors": load_file(weights), "folder": weights.parent}


@pytest.mark.parametrize(
    "given",
    [{}, LORA, DPO, {**DPO, **LORA}, {"gradient_checkpointing": True, **LORA}],
    ids=["full", "lora", "full dpo", "lora dpo", "gradient checkpointing"],
)
def test_two_processes_train_what_one_trains(
    tmp_path: Path, base: Path, given: dict[str, Any]
) -> None:
    """Clipping is at work, and the micro-batches of a step do not divide by the ranks evenly."""
    one = trained(tmp_path, base, "one", **given)
    two = trained(tmp_path, base, "two", devices=2, **given)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    for count in ("steps", "examples", "epochs", "train_tokens", "loss_tokens"):
        assert two[count] == one[count]
    assert two["tensors"].keys() == one["tensors"].keys()
    for name, tensor in one["tensors"].items():
        # By norm: where a gradient is next to nothing, Adam makes a whole step of its rounding.
        assert (two["tensors"][name] - tensor).norm() < 1e-3 * tensor.norm(), name
    assert {f.name for f in two["folder"].iterdir()} == {f.name for f in one["folder"].iterdir()}
    for file in one["folder"].glob("*.json"):
        assert settled(two["folder"] / file.name) == settled(file)


def settled(file: Path) -> Any:
    """PEFT writes its target modules in any order."""
    found = json.loads(file.read_text())
    if "target_modules" in found:
        found["target_modules"].sort()
    return found


def test_more_processes_than_micro_batches(tmp_path: Path, base: Path) -> None:
    """One of three has nothing to do in any step, and takes part all the same."""
    whole = {"micro_batch_tokens": 700}
    one = trained(tmp_path, base, "one", **whole)
    three = trained(tmp_path, base, "three", devices=3, **whole)
    assert three["losses"] == pytest.approx(one["losses"], rel=1e-4)


def test_bf16_on_two_processes(tmp_path: Path, base: Path) -> None:
    exact = trained(tmp_path, base, "exact")
    one = trained(tmp_path, base, "one", dtype="bf16")
    two = trained(tmp_path, base, "two", devices=2, dtype="bf16")
    assert two["losses"] != exact["losses"]
    assert two["losses"][0] == pytest.approx(one["losses"][0], rel=1e-4)
    assert two["losses"] == pytest.approx(one["losses"], rel=0.1)  # gradients are rounded elsewhere


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not alive


@pytest.fixture
def endless(tmp_path: Path, base: Path) -> Iterator[tuple[Any, list[psutil.Process]]]:
    """A run of two ranks in mid-training, and its ranks, by number."""
    settings = {**SHORT, "steps": 100_000, "devices": 2}
    with start(tmp_path, spec(tmp_path, base, settings=settings)) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "step"
        ranks = sorted(family(process.pid), key=lambda rank: rank.cmdline()[-1])
        assert [rank.cmdline()[-1] for rank in ranks] == ["0", "1"]
        yield process, ranks
        process.kill()


@pytest.mark.parametrize("how", ["terminate", "parent gone", "kill"])
def test_all_ranks_end_with_the_process(
    tmp_path: Path, endless: tuple[Any, list[psutil.Process]], how: str
) -> None:
    process, ranks = endless
    if how == "parent gone":
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
    expected = -signal.SIGKILL if how == "kill" else 128 + signal.SIGTERM
    assert process.wait(timeout=60) == expected
    assert gone(ranks)
    assert leftovers(tmp_path) == ["run"]  # for the next attempt to go on with


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_rank_ends_the_process_and_the_other_one(
    tmp_path: Path, endless: tuple[Any, list[psutil.Process]], number: int
) -> None:
    """Without a result and without an error that would end the job: the run may be gone on with."""
    process, ranks = endless
    ranks[number].kill()
    assert {json.loads(line)["type"] for line in process.stdout} <= {"step"}
    assert process.wait(timeout=60) == 1
    assert gone(ranks)
    assert leftovers(tmp_path) == ["run"]


def test_a_frozen_rank_does_not_keep_the_process_from_stopping(
    endless: tuple[Any, list[psutil.Process]],
) -> None:
    process, ranks = endless
    ranks[1].suspend()
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert gone(ranks)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"learning_rate": 1e30, "warmup_steps": 0}, "nan_loss"),
        ({"base_model": "/nowhere"}, "model_load_failed"),
    ],
)
def test_a_failure_of_the_ranks_keeps_its_code(
    tmp_path: Path, base: Path, changes: dict[str, Any], code: str
) -> None:
    given = spec(tmp_path, base, settings={**SHORT, "devices": 2})
    (given if "base_model" in changes else given["settings"]).update(changes)
    last = follow(tmp_path, given)[-1]
    assert (last["type"], last["code"]) == ("error", code)
    assert last["message"]
    assert leftovers(tmp_path) == []


def test_a_run_whose_rank_was_killed_ends_as_if_nothing_had_been(
    tmp_path: Path, base: Path
) -> None:
    """LoRA with dropout; test_tasks.py kills a training of all weights."""
    given = {**LORA, "lora": {"dropout": 0.1}}
    settings = {**LONG, **given, "devices": 2, "checkpoints": 3}
    rows = str(write(tmp_path / "rows.jsonl", lesson(12)[0]))

    def specify(name: str) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        return {**spec(tmp_path / name, base, settings=settings), "examples_paths": [rows]}

    undisturbed = follow(tmp_path / "whole", specify("whole"))[-1]["result"]

    broken = specify("broken")
    with start(tmp_path / "broken", broken) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["step"] == 27:
                break
        ranks = family(process.pid)
        os.kill(next(r.pid for r in ranks if r.cmdline()[-1] == "1"), signal.SIGKILL)
        process.stdout.read()
        assert process.wait(timeout=60) == 1
    assert gone(ranks)
    work = Path(broken["work_dir"])
    # Rank 1 was quicker than rank 0, whose word counts.
    (work / "state.1.999.pt").write_bytes(b"a later state")

    events = follow(tmp_path / "broken", broken)
    assert events[0]["type"] == "resumed"
    assert events[0]["step"] >= 20
    assert events[-1]["type"] == "done", events[-1]
    result = events[-1]["result"]
    assert {**result, "resumed_from": 0} == undisturbed
    one, other = (
        next((tmp_path / name / "made" / "model").glob("*model.safetensors")).read_bytes()
        for name in ("whole", "broken")
    )
    assert one == other


def test_a_state_that_lacks_a_rank_is_not_gone_on_from(tmp_path: Path, base: Path) -> None:
    settings = {**SHORT, "steps": 100_000, "save_every": 2, "devices": 2}
    given = spec(tmp_path, base, settings=settings)
    work = Path(given["work_dir"])
    with start(tmp_path, given) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["step"] == 5:
                break
        process.kill()
        ranks = list(work.glob("state.1.*.pt"))
    assert ranks
    for part in ranks:
        part.unlink()
    with start(tmp_path, given) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["step"] == 1
        process.kill()
