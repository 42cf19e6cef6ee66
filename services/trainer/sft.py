"""Supervised fine-tuning on kept judgments: one torch loop, always from the base model.

Runs compare at equal training tokens: a fixed number of optimizer steps with a fixed token budget.
The same data, settings, seed, machine and thread count give the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from selftaught.contracts import TrainSettings
from services.trainer.data import IGNORED, Example, collate, micro_batches, steps

MICRO_TOKENS = 2048
"""Most tokens in one forward pass; a step with more is accumulated. (On a CPU larger is slower.)"""
CLIP = 1.0
"""Largest gradient norm."""


class NanLoss(RuntimeError):
    """The loss is no number any more: learning rate too high, or broken weights."""


@dataclass
class Trained:
    """What a run did. `train_tokens`: tokens that went through the model, prompts included;
    `loss_tokens`: those with loss; `epochs`: passes over the examples, a fraction at the end;
    `losses`: mean loss per loss token, one for each step (nats)."""

    steps: int = 0
    examples: int = 0
    epochs: float = 0.0
    train_tokens: int = 0
    loss_tokens: int = 0
    losses: list[float] = field(default_factory=list)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Rate of step 0, 1, ...: linear warm-up, then linear decay to `final_lr_share` of the peak."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    left = settings.steps - settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, left - 1)
    return settings.learning_rate * (1 - (1 - settings.final_lr_share) * min(1.0, done))


def prepare(model: Any, settings: TrainSettings, seed: int) -> Any:
    """The model to train: itself in float32, or with LoRA adapters on all its linear layers."""
    if settings.method == "full":
        return model.float()
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)  # of the adapters' first weights

    config = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def train(
    model: Any,
    examples: list[Example],
    settings: TrainSettings,
    seed: int,
    on_step: Callable[[int, float, float], None],
) -> Trained:
    """Train `model` (see :func:`prepare`) in place; AdamW (betas 0.9, 0.95), gradient clipping.

    `on_step(step, loss, rate)` is called after each step, counted from 1. Raises NanLoss before
    the weights of that step are touched.
    """
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim > 1]},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=settings.weight_decay,
    )
    result = Trained(examples=len(examples))
    seen = 0
    model.train()
    source = steps(examples, settings.tokens_per_step, seed)
    for step in range(settings.steps):
        _, taken = next(source)
        loss_tokens = sum(len(e.ids) - e.prompt for e in taken)
        total = 0.0
        for batch in micro_batches(taken, MICRO_TOKENS):
            loss = _loss_sum(model, batch, device) / loss_tokens
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(weights, CLIP)
        if not math.isfinite(total) or not bool(torch.isfinite(norm)):
            raise NanLoss(f"loss {total}, gradient norm {float(norm)} at step {step + 1}")
        rate = learning_rate(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += len(taken)
        result.steps = step + 1
        result.train_tokens += sum(len(e.ids) for e in taken)
        result.loss_tokens += loss_tokens
        result.losses.append(total)
        result.epochs = seen / len(examples)
        on_step(step + 1, total, rate)
    model.eval()
    return result


def _loss_sum(model: Any, batch: list[Example], device: torch.device) -> torch.Tensor:
    """Sum of the cross-entropy over the judgment tokens; bfloat16 arithmetic on CUDA."""
    ids, labels = collate(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = model(input_ids=ids, use_cache=False).logits
    wanted = labels[:, 1:] != IGNORED
    return F.cross_entropy(logits[:, :-1][wanted].float(), labels[:, 1:][wanted], reduction="sum")
