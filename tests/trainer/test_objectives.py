"""What is made smaller: log-probabilities by hand, DPO by hand, and what padding must not do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.nn.functional import cross_entropy

from selftaught.contracts import TrainSettings
from selftaught.inference.local import load_model
from services.trainer import loop
from services.trainer.data import Example, Preference, collate, tokenise
from services.trainer.objectives import dpo, dpo_loss, log_probs, step_loss, with_references
from tests.trainer.conftest import lesson

SETTINGS = TrainSettings(objective="sft_dpo", beta=0.5, nll_weight=2.0)


def unlike(base: Path) -> tuple[torch.nn.Module, Example, Example]:
    """The tiny model, and two examples of different lengths."""
    model, words = load_model(base)
    rows, _ = lesson(2)
    longer = {**rows[1], "completion": [{"role": "assistant", "content": "x" * 40}]}
    short, long = tokenise([rows[0], longer], words, 500)[0]
    return model.eval(), short, long


def by_hand(model: torch.nn.Module, example: Example) -> float:
    """log p of the judgment and its end, token by token, alone in its batch."""
    with torch.inference_mode():
        [scores] = model(input_ids=torch.tensor([example.ids])).logits.double().tolist()
    total = 0.0
    for place in range(example.prompt, len(example.ids)):
        before = scores[place - 1]
        total += before[example.ids[place]] - math.log(sum(math.exp(s) for s in before))
    return total


def test_log_probabilities_are_those_of_the_judgment_and_its_end_only(base: Path) -> None:
    model, short, long = unlike(base)
    with torch.inference_mode():
        found = log_probs(model, [short, long], SETTINGS).tolist()
    assert found == pytest.approx([by_hand(model, short), by_hand(model, long)], rel=1e-4)
    assert found[0] != pytest.approx(found[1], rel=0.1)


def test_the_loss_of_examples_is_the_mean_over_judgment_tokens(base: Path) -> None:
    model, short, long = unlike(base)
    sum_of_both = -by_hand(model, short) - by_hand(model, long)
    count = len(short.ids) - short.prompt + len(long.ids) - long.prompt
    for micro in (1, 10_000):  # apart, and together with padding
        settings = TrainSettings(micro_batch_tokens=micro)
        found = sum(float(part.detach()) for part in step_loss(model, [short, long], settings))
        assert found == pytest.approx(sum_of_both / count, rel=1e-4)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_head_computes_judgment_tokens_only(
    base: Path, method: Literal["full", "lora"]
) -> None:
    model, short, long = unlike(base)
    settings = TrainSettings(method=method, micro_batch_tokens=10_000)
    model = loop.prepare(model, settings, 0)
    shapes = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda head, inputs, logits: shapes.append(logits.shape[:-1])
    )
    [loss] = step_loss(model, [short, long], settings)
    assert shapes == [(len(short.ids) - short.prompt + len(long.ids) - long.prompt,)]
    handle.remove()
    loss.backward()  # type: ignore[no-untyped-call]
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    ids, labels = collate([short, long])
    logits = model(input_ids=ids).logits  # nothing of the hook is left: all places
    whole = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    whole.backward()  # type: ignore[no-untyped-call]
    wanted = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_dpo_by_hand() -> None:
    """Margin (-2 + 2.5) - (-3 + 2) = 1.5, times 0.5: log(1 + e^-0.75) = 0.386871. NLL 2 * 2 / 4."""
    found = dpo_loss(
        torch.tensor([-2.0, -2.0]),
        torch.tensor([-3.0, -3.0]),
        torch.tensor([[-2.5, -2.0], [-2.0, -3.0]]),
        torch.tensor([4, 8]),
        SETTINGS,
    )
    assert found.tolist() == pytest.approx([0.386871 + 1.0, math.log(2) + 0.5], abs=1e-5)


def test_dpo_of_a_model(base: Path) -> None:
    model, short, long = unlike(base)
    right, wrong = by_hand(model, short), by_hand(model, long)
    pair = Preference(short, long, (right - 1.0, wrong + 0.5))
    expected = math.log(1 + math.exp(-0.75)) - 2.0 * right / (len(short.ids) - short.prompt)
    with torch.inference_mode():
        assert dpo(model, [pair], SETTINGS).tolist() == pytest.approx([expected], rel=1e-4)


def test_references_are_the_models_own_log_probabilities(base: Path) -> None:
    model, short, long = unlike(base)
    pairs = [Preference(long, short), Preference(short, long)]
    told = with_references(model, pairs, SETTINGS)
    one, other = by_hand(model, short), by_hand(model, long)
    assert told[0].reference == pytest.approx((other, one), rel=1e-4)
    assert told[1].reference == pytest.approx((one, other), rel=1e-4)
    assert [(p.chosen, p.rejected) for p in told] == [(p.chosen, p.rejected) for p in pairs]
