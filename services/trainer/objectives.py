"""What a step makes smaller: the loss of kept judgments, or DPO on pairs of judgments.

Both are sums over a micro-batch, divided by what the whole step holds, so that the micro-batches of
a step add up to the loss (and gradient) of one big batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from selftaught.contracts import TrainSettings
from services.trainer.data import (
    IGNORED,
    Example,
    Item,
    Preference,
    collate,
    loss_tokens,
    micro_batches,
)
from services.trainer.ranks import ALONE, Ranks


def step_loss(
    model: Any, taken: Sequence[Item], settings: TrainSettings, ranks: Ranks = ALONE
) -> Iterable[torch.Tensor]:
    """The parts of a step's loss, one for each micro-batch; run backward on each before the next.

    Examples: cross-entropy, mean over the judgment tokens of the step (nats). Preferences: see
    :func:`dpo`, mean over the pairs of the step. Of several ranks each has its share of the
    micro-batches, and the mean over ranks of what their parts add up to is the step's loss.
    """
    total = sum(loss_tokens(item) for item in taken)
    batches = list(micro_batches(list(taken), settings.micro_batch_tokens))
    for batch, weight in ranks.share(batches):
        if isinstance(batch[0], Preference):
            yield weight * dpo(model, batch, settings).sum() / len(taken)
        else:
            yield weight * _token_losses(model, batch, settings, "sum")[0] / total


def dpo(model: Any, pairs: Sequence[Preference], settings: TrainSettings) -> torch.Tensor:
    """:func:`dpo_loss` of each pair under the model, [pairs]."""
    chosen, rejected = [p.chosen for p in pairs], [p.rejected for p in pairs]
    found = log_probs(model, [*chosen, *rejected], settings)
    reference = torch.tensor([p.reference for p in pairs], device=found.device)
    lengths = torch.tensor([loss_tokens(one) for one in chosen], device=found.device)
    return dpo_loss(found[: len(pairs)], found[len(pairs) :], reference, lengths, settings)


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference: torch.Tensor,
    lengths: torch.Tensor,
    settings: TrainSettings,
) -> torch.Tensor:
    """From log-probabilities [pairs] of both sides, the seed's [pairs, 2], and the tokens of the
    chosen judgments [pairs], the loss of each pair [pairs]:

        -log sigmoid(beta * (log p(chosen) / q(chosen) - log p(rejected) / q(rejected)))
        - nll_weight * log p(chosen) / tokens of chosen

    p is the model and q the seed. DPO: Rafailov et al. 2023, arXiv 2305.18290, equation 7; the
    second line, which keeps the chosen judgment likely: Pang et al. 2024, arXiv 2404.19733,
    equation 1.
    """
    margin = (chosen - reference[:, 0]) - (rejected - reference[:, 1])
    return -F.logsigmoid(settings.beta * margin) - settings.nll_weight * chosen / lengths


def with_references(
    model: Any, pairs: list[Preference], settings: TrainSettings, ranks: Ranks = ALONE
) -> list[Preference]:
    """The pairs with `model`'s log-probabilities as their reference, so that no second model need
    stay in memory. Computed in evaluation mode; ranks share the work."""
    model.eval()
    places = {id(pair): place for place, pair in enumerate(pairs)}
    references = torch.zeros(len(pairs), 2, dtype=torch.float64)
    with torch.no_grad():
        batches = list(micro_batches(pairs, settings.micro_batch_tokens))
        for batch, weight in ranks.share(batches):
            sequences = [*(p.chosen for p in batch), *(p.rejected for p in batch)]
            found = log_probs(model, sequences, settings).double().cpu()
            if weight:
                references[[places[id(pair)] for pair in batch]] = found.view(2, len(batch)).T
    known = ranks.total(references).tolist()
    return [
        replace(p, reference=(one, other)) for p, (one, other) in zip(pairs, known, strict=True)
    ]


def log_probs(model: Any, sequences: Sequence[Example], settings: TrainSettings) -> torch.Tensor:
    """log p(judgment and its end | prompt), summed over tokens, for each sequence (nats)."""
    losses, wanted = _token_losses(model, sequences, settings, "none")
    placed = torch.zeros(wanted.shape, device=losses.device).masked_scatter(wanted, losses)
    return -placed.sum(dim=1)


def _token_losses(
    model: Any, sequences: Sequence[Example], settings: TrainSettings, reduction: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the judgment tokens, and the mask that says where they stand."""
    ids, labels = collate(list(sequences), model.device)
    wanted = labels[:, 1:] != IGNORED
    with arithmetic(settings, model.device), _head_sees(model, F.pad(wanted, (0, 1))):
        logits = model(input_ids=ids, use_cache=False).logits
    targets = labels[:, 1:][wanted]
    return F.cross_entropy(logits.float(), targets, reduction=reduction), wanted


@contextmanager
def _head_sees(model: Any, places: torch.Tensor) -> Iterator[None]:
    """While the block runs, logits are those of these places [examples, longest] only, as
    [places, vocabulary]: over a large vocabulary all the others would cost more than a layer."""
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda head, inputs: (inputs[0][places],)
    )
    try:
        yield
    finally:
        handle.remove()


def arithmetic(settings: TrainSettings, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 where the settings ask for it. Weights keep their dtype."""
    found: AbstractContextManager[Any] = torch.autocast(
        device.type, torch.bfloat16, enabled=in_bf16(settings, device)
    )
    return found


def in_bf16(settings: TrainSettings, device: torch.device) -> bool:
    """Whether the settings ask for bfloat16; 'auto' does on CUDA."""
    return device.type == "cuda" if settings.dtype == "auto" else settings.dtype == "bf16"
