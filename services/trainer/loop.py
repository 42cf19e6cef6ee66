"""The training loop, the same for every objective: steps of equal tokens, AdamW, a schedule.

The same data, settings, seed, machine and thread count give the same weights; so does a run that
was killed and went on from what it had saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from selftaught.contracts import LoraSettings, TrainSettings
from services.trainer.data import Item, count_steps, loss_tokens, steps, tokens
from services.trainer.objectives import step_loss
from services.trainer.ranks import ALONE, Ranks, plain
from services.trainer.state import State

CURVE_POINTS = 200
"""Of a run's loss curve, at most: a job's page has those of all its iterations."""


class NanLoss(RuntimeError):
    """The loss is no number any more: learning rate too high, or broken weights."""


@dataclass
class Trained:
    """What a run did. `train_tokens`: tokens that went through the model, prompts included;
    `loss_tokens`: those with loss; `epochs`: passes over the examples, a fraction at the end;
    `losses`: the loss of each step (nats; objectives.py); `resumed_from`: the step that the last
    process went on from, 0 if it began."""

    steps: int = 0
    examples: int = 0
    epochs: float = 0.0
    train_tokens: int = 0
    loss_tokens: int = 0
    losses: list[float] = field(default_factory=list)
    resumed_from: int = 0


def total_steps(items: list[Item], settings: TrainSettings, seed: int) -> int:
    """How many steps a run has: `steps`, or as many as `epochs` passes take."""
    if settings.steps is not None:
        return settings.steps
    assert settings.epochs is not None
    return count_steps(items, settings.tokens_per_step, seed, settings.epochs)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Rate of step 0, 1, ... of `total`: linear warm-up, then linear or cosine decay to
    `final_lr_share` of the peak, which the last step has."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    left = total - settings.warmup_steps
    done = min(1.0, (step - settings.warmup_steps) / max(1, left - 1))
    if settings.schedule == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return settings.learning_rate * (1 - (1 - settings.final_lr_share) * done)


def curve(losses: list[float], total: int, settings: TrainSettings) -> list[dict[str, float]]:
    """At most CURVE_POINTS points {step, loss, learning_rate} of a run's losses: each is the mean
    over equally many steps (the last one over the rest), at the last of them."""
    width = -(-len(losses) // CURVE_POINTS) or 1
    parts = [losses[at : at + width] for at in range(0, len(losses), width)]
    steps = [min((at + 1) * width, len(losses)) for at in range(len(parts))]
    return [
        {
            "step": step,
            "loss": sum(part) / len(part),
            "learning_rate": learning_rate(step - 1, total, settings),
        }
        for step, part in zip(steps, parts, strict=True)
    ]


def in_own_dtype(model: Any, settings: TrainSettings) -> Any:
    """The weights as they are trained: float32, but a frozen base may stay in a shorter dtype."""
    if settings.quantize != "none":
        return model
    return model.float() if settings.method == "full" or settings.dtype == "fp32" else model


def prepare(model: Any, settings: TrainSettings, seed: int, adapter: Path | None = None) -> Any:
    """The model to train: itself, or with LoRA on all its linear layers; `adapter` is an earlier
    one to go on with, None a new one (which changes nothing until it is trained)."""
    model = in_own_dtype(model, settings)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.method == "full":
        return model
    from peft import PeftModel, get_peft_model

    if adapter is not None:
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    torch.manual_seed(seed)  # of the adapters' first weights
    return get_peft_model(model, lora_config(settings.lora))


def lora_config(settings: LoraSettings) -> Any:
    """PEFT's configuration: LoRA on all linear layers."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def train(
    model: Any,
    items: list[Item],
    settings: TrainSettings,
    seed: int,
    on_step: Callable[[int, float, float], None],
    state: State | None = None,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train `model` (see :func:`prepare`, and Ranks.shard) in place; AdamW (betas 0.9, 0.95),
    gradient clipping.

    `on_step(step, loss, rate)` is called after each step, counted from 1. With `state`, a run that
    was saved there goes on behind its last saved step. Raises NanLoss before the weights of that
    step are touched.
    """
    torch.manual_seed(seed + ranks.number)  # of dropout, so that ranks differ
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights.values() if p.ndim > 1]},
            {"params": [p for p in weights.values() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=settings.weight_decay,
    )
    total = total_steps(items, settings, seed)
    result = Trained(examples=len(items))
    if state is not None and (saved := state.restore(weights, optimizer)) is not None:
        result = Trained(**saved)
        result.resumed_from = result.steps
    model.train()
    source = steps(items, settings.tokens_per_step, seed)
    seen = sum(len(taken) for taken in islice(source, result.steps))
    for step in range(result.steps, total):
        taken = next(source)
        loss = 0.0
        for part in step_loss(model, taken, settings, ranks):
            part.backward()
            loss += part.item()
        loss = ranks.mean(loss)
        norm = plain(torch.nn.utils.clip_grad_norm_(weights.values(), settings.max_grad_norm))
        if not math.isfinite(loss) or not bool(torch.isfinite(norm)):
            raise NanLoss(f"loss {loss}, gradient norm {float(norm)} at step {step + 1}")
        rate = learning_rate(step, total, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += len(taken)
        result.steps = step + 1
        result.train_tokens += sum(tokens(item) for item in taken)
        result.loss_tokens += sum(loss_tokens(item) for item in taken)
        result.losses.append(loss)
        result.epochs = seen / len(items)
        on_step(step + 1, loss, rate)
        if state is not None and state.is_due(step + 1, total):
            state.save(weights, optimizer, asdict(result))
    model.eval()
    return result
