"""Training: learns, repeats itself exactly, and does not mistake a broken run for a result."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from selftaught.contracts import TrainSettings
from selftaught.inference.local import load_model
from services.trainer import sft
from services.trainer.data import tokenise
from services.trainer.sft import NanLoss, Trained, learning_rate
from tests.trainer.conftest import lesson

FAST = TrainSettings(learning_rate=5e-3, warmup_steps=2, steps=6, tokens_per_step=600)


def run(base: Path, settings: TrainSettings = FAST, seed: int = 1) -> tuple[Any, Trained]:
    model, words = load_model(base)
    examples, _ = tokenise(lesson(10)[0], words, 500)
    model = sft.prepare(model, settings, seed)
    return model, sft.train(model, examples, settings, seed, lambda step, loss, rate: None)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_loss_falls_and_the_account_is_right(base: Path) -> None:
    _, trained = run(base)
    assert trained.steps == len(trained.losses) == 6
    assert trained.losses[-1] < trained.losses[0] / 2
    assert trained.examples == 20
    assert 6 * 600 <= trained.train_tokens < 6 * 750
    assert trained.loss_tokens % 6 == 0  # every judgment is `[[A]]` and its end: six tokens
    assert trained.epochs == pytest.approx(trained.loss_tokens / 6 / 20)


def test_same_seed_same_weights(base: Path) -> None:
    one, other = weights(run(base)[0]), weights(run(base)[0])
    assert all(one[name].equal(other[name]) for name in one)
    different = weights(run(base, seed=2)[0])
    assert not all(one[name].equal(different[name]) for name in one)


def test_cutting_a_step_into_micro_batches_changes_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(base)[1].losses
    monkeypatch.setattr(sft, "MICRO_TOKENS", 200)
    assert run(base)[1].losses == pytest.approx(whole, rel=1e-3)


def test_padding_changes_no_loss(base: Path) -> None:
    model, words = load_model(base)
    rows, _ = lesson(2)
    longer = {**rows[1], "completion": [{"role": "assistant", "content": "x" * 40}]}
    short, long = tokenise([rows[0], longer], words, 500)[0]
    device = torch.device("cpu")
    with torch.inference_mode():
        together = sft._loss_sum(model, [short, long], device)
        apart = sft._loss_sum(model, [short], device) + sft._loss_sum(model, [long], device)
    assert float(together) == pytest.approx(float(apart), rel=1e-5)


def test_lora_trains_adapters_only_and_repeats_itself(base: Path) -> None:
    settings = FAST.model_copy(update={"method": "lora", "learning_rate": 2e-2})
    model, trained = run(base, settings)
    assert trained.losses[-1] < trained.losses[0]
    before = load_model(base)[0].state_dict()
    after = model.merge_and_unload().state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {n for n in before if "_proj" in n}  # all linear layers, and nothing else
    assert run(base, settings)[1].losses == trained.losses


def test_schedule() -> None:
    settings = TrainSettings(learning_rate=1.0, warmup_steps=4, steps=15, final_lr_share=0.2)
    rates = [learning_rate(step, settings) for step in range(15)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[-1] == pytest.approx(0.2)
    falls = [a - b for a, b in pairwise(rates[4:])]
    assert falls == pytest.approx([0.08] * 10)


def test_schedule_with_warm_up_only_and_a_single_step() -> None:
    assert learning_rate(0, TrainSettings(learning_rate=1.0, warmup_steps=0, steps=1)) == 1.0
    assert learning_rate(4, TrainSettings(learning_rate=1.0, warmup_steps=10, steps=5)) == 0.5


def test_a_loss_that_is_no_number_stops_the_run(base: Path) -> None:
    with pytest.raises(NanLoss, match="step"):
        run(base, FAST.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0}))
