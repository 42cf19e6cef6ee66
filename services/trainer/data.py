"""From training rows to batches: loss on the judgment and its end token, nothing else.

An optimizer step takes random examples up to a token budget, so that runs compare at equal training
tokens; inside the step they are sorted by length into micro-batches, so that little is padding.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftaught.jsonl import Row

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of tokens without loss."""


class BadData(ValueError):
    """The training rows cannot be trained on."""


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised row: `ids` is prompt and judgment, of which the first `prompt` carry no loss."""

    ids: list[int]
    prompt: int


def tokenise(rows: Iterable[Row], tokenizer: Any, longest: int) -> tuple[list[Example], int]:
    """Examples from rows {prompt: [messages], completion: [one message]}, and how many were left
    out for being longer than `longest` tokens.

    The prompt is rendered exactly as the local engine renders it for sampling; the judgment follows
    with the end token. Raises BadData for a malformed row, an empty judgment, or no example at all.
    """
    examples: list[Example] = []
    too_long = 0
    end = tokenizer.eos_token_id
    for number, row in enumerate(rows, 1):
        try:
            shown = tokenizer.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True
            )
            judgment = row["completion"][0]["content"]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BadData(f"training row {number}: {type(error).__name__}: {error}") from error
        prompt = tokenizer(shown, add_special_tokens=False)["input_ids"]
        answer = tokenizer(judgment, add_special_tokens=False)["input_ids"]
        if not answer:
            raise BadData(f"training row {number}: the judgment is empty")
        if len(prompt) + len(answer) + 1 > longest:
            too_long += 1
            continue
        examples.append(Example([*prompt, *answer, end], len(prompt)))
    if not examples:
        raise BadData(f"no training examples ({too_long} were too long)")
    return examples, too_long


def steps(
    examples: list[Example], tokens_per_step: int, seed: int
) -> Iterator[tuple[int, list[Example]]]:
    """Endless (epoch, examples of one step): every epoch goes through all examples once, in a new
    random order; a step takes examples until it holds at least `tokens_per_step` tokens, across
    the border of epochs too, so that every step has about the same number."""
    epoch = 0
    taken: list[Example] = []
    tokens = 0
    while True:
        order = list(range(len(examples)))
        random.Random(seed + epoch).shuffle(order)
        for index in order:
            taken.append(examples[index])
            tokens += len(examples[index].ids)
            if tokens >= tokens_per_step:
                yield epoch, taken
                taken, tokens = [], 0
        epoch += 1


def micro_batches(examples: list[Example], most_tokens: int) -> Iterator[list[Example]]:
    """Examples of like length together, at most `most_tokens` a batch, padding included (a single
    longer example stands alone)."""
    batch: list[Example] = []
    for example in sorted(examples, key=lambda e: len(e.ids)):
        if batch and len(example.ids) * (len(batch) + 1) > most_tokens:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


def collate(
    batch: list[Example], device: str | torch.device = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """(input ids, labels), each [examples, longest], padded on the right.

    No attention mask is needed: causal attention never looks at what stands to the right, and the
    padding itself has no loss.
    """
    import torch

    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, example in enumerate(batch):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        labels[row, example.prompt : length] = ids[row, example.prompt : length]
    return ids.to(device), labels.to(device)
