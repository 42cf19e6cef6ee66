"""Training: learns, repeats itself exactly, and does not mistake a broken run for a result."""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from selftaught.contracts import TrainSettings
from selftaught.inference.local import load_model
from services.trainer import loop
from services.trainer.data import Example, tokenise, tokenise_preferences
from services.trainer.loop import NanLoss, Trained, learning_rate
from services.trainer.objectives import step_loss, with_references
from services.trainer.state import State
from tests.trainer.conftest import lesson, preferences

FAST = TrainSettings(learning_rate=5e-3, warmup_steps=2, steps=6, tokens_per_step=600)
DROPOUT = {"method": "lora", "lora": {"dropout": 0.2}, "learning_rate": 2e-2}


def changed(**settings: Any) -> TrainSettings:
    return TrainSettings.model_validate({**FAST.model_dump(), **settings})


def run(base: Path, settings: TrainSettings = FAST, seed: int = 1) -> tuple[Any, Trained]:
    model, items = load(base, settings)
    model = loop.prepare(model, settings, seed)
    return model, loop.train(model, items, settings, seed, lambda step, loss, rate: None)


def load(base: Path, settings: TrainSettings) -> tuple[Any, list[Any]]:
    """The tiny model, and what the objective learns from."""
    model, words = load_model(base)
    if settings.objective == "sft":
        return model, tokenise(lesson(10)[0], words, 500)[0]
    pairs, _ = tokenise_preferences(preferences(10), words, 500)
    return model, with_references(model, pairs, settings)


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


@pytest.mark.parametrize("objective", ["sft", "sft_dpo"])
def test_micro_batches_add_up_to_one_big_batch(base: Path, objective: str) -> None:
    """Loss and every gradient of a step, whole and cut up, with judgments of unlike lengths."""

    def step(micro_batch_tokens: int) -> tuple[int, float, dict[str, torch.Tensor]]:
        settings = changed(objective=objective, micro_batch_tokens=micro_batch_tokens)
        model, items = load(base, settings)
        if objective == "sft":
            items = [Example([*e.ids, *range(i % 7)], e.prompt) for i, e in enumerate(items)]
        parts = [
            (part.backward(), float(part.detach()))[1]
            for part in step_loss(model.train(), items, settings)
        ]
        return len(parts), sum(parts), {n: p.grad for n, p in model.named_parameters()}

    whole, cut = step(100_000), step(300)
    assert (whole[0], cut[0] > 4) == (1, True)
    assert cut[1] == pytest.approx(whole[1], rel=1e-6)
    for name, gradient in whole[2].items():
        assert torch.allclose(cut[2][name], gradient, rtol=1e-4, atol=1e-6), name


def test_a_run_in_micro_batches_ends_like_one_in_big_batches(base: Path) -> None:
    whole = run(base, changed(micro_batch_tokens=100_000))[1].losses
    assert run(base, changed(micro_batch_tokens=200))[1].losses == pytest.approx(whole, rel=1e-3)


def test_lora_trains_adapters_only_and_repeats_itself(base: Path) -> None:
    settings = changed(method="lora", learning_rate=2e-2)
    model, trained = run(base, settings)
    assert trained.losses[-1] < trained.losses[0]
    before = load_model(base)[0].state_dict()
    after = model.merge_and_unload().state_dict()
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved == {n for n in before if "_proj" in n}  # all linear layers, and nothing else
    assert run(base, settings)[1].losses == trained.losses


def test_schedule() -> None:
    settings = TrainSettings(learning_rate=1.0, warmup_steps=4, final_lr_share=0.2)
    rates = [learning_rate(step, 15, settings) for step in range(15)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[-1] == pytest.approx(0.2)
    falls = [a - b for a, b in pairwise(rates[4:])]
    assert falls == pytest.approx([0.08] * 10)


def test_cosine_schedule() -> None:
    settings = TrainSettings(
        learning_rate=1.0, warmup_steps=4, final_lr_share=0.2, schedule="cosine"
    )
    rates = [learning_rate(step, 15, settings) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.6)  # half-way between 1.0 and 0.2
    assert rates[6] == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * 0.2)))
    assert rates[-1] == pytest.approx(0.2)


def test_schedule_with_warm_up_only_and_a_single_step() -> None:
    assert learning_rate(0, 1, TrainSettings(learning_rate=1.0, warmup_steps=0)) == 1.0
    assert learning_rate(4, 5, TrainSettings(learning_rate=1.0, warmup_steps=10)) == 0.5


def test_a_curve_is_bounded_and_loses_no_step() -> None:
    settings = TrainSettings(steps=1000, warmup_steps=0, learning_rate=1.0, final_lr_share=0.0)
    for count in (1, 8, loop.CURVE_POINTS, loop.CURVE_POINTS + 1, 1000):
        losses = [float(step) for step in range(1, count + 1)]
        points = loop.curve(losses, 1000, settings)
        assert len(points) <= loop.CURVE_POINTS
        steps = [0, *(int(point["step"]) for point in points)]
        assert steps[-1] == count
        for (before, step), point in zip(pairwise(steps), points, strict=True):
            assert point["loss"] == sum(losses[before:step]) / (step - before)
            assert point["learning_rate"] == learning_rate(step - 1, 1000, settings)
    assert [point["step"] for point in loop.curve([1.0] * 8, 8, settings)] == list(range(1, 9))


def test_epochs_in_place_of_steps(base: Path) -> None:
    _, trained = run(base, changed(steps=None, epochs=1.5))
    assert trained.epochs == pytest.approx(1.5, abs=0.25)
    assert len(trained.losses) == trained.steps
    assert run(base, changed(steps=trained.steps))[1].losses == trained.losses


@pytest.mark.parametrize("both", [{}, {"steps": None}, {"steps": 5, "epochs": 1.0}])
def test_a_run_has_one_length(both: dict[str, Any]) -> None:
    if both:
        with pytest.raises(ValueError, match="either steps or epochs"):
            TrainSettings.model_validate(both)
    else:
        assert (TrainSettings().steps, TrainSettings().epochs) == (500, None)


def test_gradient_checkpointing_changes_no_number(base: Path) -> None:
    for method in ({}, DROPOUT):
        plain, saving = (
            run(base, changed(**method, gradient_checkpointing=on)) for on in (False, True)
        )
        assert saving[0].is_gradient_checkpointing
        assert saving[1].losses == plain[1].losses


def test_bf16_is_arithmetic_only(base: Path) -> None:
    model, trained = run(base, changed(dtype="bf16"))
    exact = run(base, changed(dtype="fp32"))[1].losses
    assert trained.losses != exact
    assert trained.losses == pytest.approx(exact, rel=0.1)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert run(base)[1].losses == exact  # 'auto' on a CPU


def test_gradients_are_clipped_to_the_largest_norm(base: Path) -> None:
    """AdamW hardly sees the size of a gradient, so look at what clipping leaves."""
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(weights: Any, most: float) -> torch.Tensor:
        weights = list(weights)
        before = clip(weights, most)
        norms.append(float(torch.linalg.vector_norm(torch.stack([w.grad.norm() for w in weights]))))
        return before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
        run(base, changed(max_grad_norm=0.01))
    assert norms == pytest.approx([0.01] * 6, rel=1e-3)


def test_sft_dpo_moves_probability_from_the_wrong_to_the_right_judgment(base: Path) -> None:
    settings = changed(objective="sft_dpo", learning_rate=2e-3, steps=20)
    model, trained = run(base, settings)
    first = math.log(2)  # of DPO, where the model still is the reference
    assert trained.losses[0] > first
    assert trained.losses[-1] < trained.losses[0] / 2
    _, before = load(base, settings)
    after = with_references(model, before, settings)
    assert sum(b.reference[0] > a.reference[0] for a, b in zip(before, after, strict=True)) == 20
    margins = [b.reference[0] - b.reference[1] for b in before]
    assert all(
        b.reference[0] - b.reference[1] > margin for b, margin in zip(after, margins, strict=True)
    )


def test_lora_starts_dpo_at_the_reference(base: Path) -> None:
    """The seed's log-probabilities are the model's own with its adapter off, or not yet trained."""
    settings = changed(**DROPOUT, objective="sft_dpo", nll_weight=0, tokens_per_step=1)
    model, trained = run(base, settings)
    assert trained.losses[0] == pytest.approx(math.log(2), abs=1e-3)
    _, pairs = load(base, settings)
    with model.disable_adapter():
        off = with_references(model, pairs, settings)
    assert [p.reference for p in off] == [p.reference for p in pairs]
    assert [p.reference for p in with_references(model, pairs, settings)] != [
        p.reference for p in pairs
    ]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "given",
    [{}, DROPOUT, {"objective": "sft_dpo"}, {**DROPOUT, "objective": "sft_dpo"}],
    ids=["full", "lora", "full dpo", "lora dpo"],
)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(
    base: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    settings = changed(**given, steps=9, save_every=3)
    whole, told = run(base, settings)
    state = State(tmp_path / "state.pt", settings.save_every, "this run")

    def attempt(until: int) -> tuple[Any, Trained]:
        model, items = load(base, settings)
        model = loop.prepare(model, settings, 1)

        def on_step(step: int, loss: float, rate: float) -> None:
            if step == until:
                raise Killed

        return model, loop.train(model, items, settings, 1, on_step, state)

    for until, saved in ((5, 3), (6, 3), (8, 6)):
        with pytest.raises(Killed):
            attempt(until)
        assert state.saved_step() == saved
    model, trained = attempt(0)
    assert trained.resumed_from == 6
    assert {**asdict(trained), "resumed_from": 0} == asdict(told)
    one, other = weights(model), weights(whole)
    assert all(one[name].equal(other[name]) for name in other)
    assert attempt(0)[1].resumed_from == 9  # the last step is saved as well
    assert State(state.file, 3, "another run").saved_step() is None


def test_a_loss_that_is_no_number_stops_the_run(base: Path) -> None:
    with pytest.raises(NanLoss, match="step"):
        run(base, changed(learning_rate=1e30, warmup_steps=0))
