"""From training rows to batches: loss on the judgment and its end token, nothing else.

An optimizer step takes random examples up to a token budget, so that runs compare at equal training
tokens; inside the step they are sorted by length into micro-batches, so that little is padding.
Nothing is packed: without an attention that knows where an example ends, neighbours would leak.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from selftaught.inference.chat import render_chat, special_tokens
from selftaught.jsonl import Row
from selftaught.judging import break_tokens

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

    @property
    def sequences(self) -> tuple[Example, ...]:
        """What goes through the model for this row."""
        return (self,)


@dataclass(frozen=True, slots=True)
class Preference:
    """A right and a wrong judgment of one prompt. `reference`: the log-probability that the seed
    gives each of them (nats, summed over judgment and end token)."""

    chosen: Example
    rejected: Example
    reference: tuple[float, float] = (0.0, 0.0)

    @property
    def sequences(self) -> tuple[Example, ...]:
        return (self.chosen, self.rejected)


Item = TypeVar("Item", Example, Preference)


def tokens(item: Example | Preference) -> int:
    """Prompt and judgment tokens of all its sequences."""
    return sum(len(sequence.ids) for sequence in item.sequences)


def loss_tokens(item: Example | Preference) -> int:
    """Tokens of all its judgments, their ends included."""
    return sum(len(sequence.ids) - sequence.prompt for sequence in item.sequences)


def longest(item: Example | Preference) -> int:
    """Tokens of its longest sequence."""
    return max(len(sequence.ids) for sequence in item.sequences)


def tokenise(rows: Iterable[Row], tokenizer: Any, most: int) -> tuple[list[Example], int]:
    """Examples from rows {prompt: [messages], completion: [one message]}, and how many were left
    out for being longer than `most` tokens. Raises BadData for a malformed row, an empty judgment,
    or no example at all."""
    read = (_sequences(row, number, tokenizer, "completion") for number, row in enumerate(rows, 1))
    return _fitting((example for (example,) in read), most)


def tokenise_preferences(
    rows: Iterable[Row], tokenizer: Any, most: int
) -> tuple[list[Preference], int]:
    """The same of rows {prompt: [messages], chosen: [one message], rejected: [one message]}."""
    read = (
        _sequences(row, number, tokenizer, "chosen", "rejected")
        for number, row in enumerate(rows, 1)
    )
    return _fitting((Preference(chosen, rejected) for chosen, rejected in read), most)


def _sequences(row: Row, number: int, tokenizer: Any, *columns: str) -> list[Example]:
    """Prompt and judgment for each column that has one.

    The prompt is rendered exactly as the local engine renders it for sampling; the judgment follows
    with the end token.
    """
    try:
        shown = render_chat(tokenizer, row["prompt"])
        judgments = [
            break_tokens(row[column][0]["content"], special_tokens(tokenizer)) for column in columns
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadData(f"training row {number}: {type(error).__name__}: {error}") from error
    prompt = tokenizer(shown, add_special_tokens=False)["input_ids"]
    answers = tokenizer(judgments, add_special_tokens=False)["input_ids"]
    if not all(answers):
        raise BadData(f"training row {number}: the judgment is empty")
    end = tokenizer.eos_token_id
    return [Example([*prompt, *answer, end], len(prompt)) for answer in answers]


def _fitting(items: Iterable[Item], most: int) -> tuple[list[Item], int]:
    fitting: list[Item] = []
    too_long = 0
    for item in items:
        if longest(item) <= most:
            fitting.append(item)
        else:
            too_long += 1
    if not fitting:
        raise BadData(f"no training examples ({too_long} were too long)")
    return fitting, too_long


def steps(items: list[Item], tokens_per_step: int, seed: int) -> Iterator[list[Item]]:
    """Endless examples of one step: every epoch goes through all of them once, in a new random
    order; a step takes examples until it holds at least `tokens_per_step` tokens, across the border
    of epochs too, so that every step has about the same number."""
    epoch = 0
    taken: list[Item] = []
    held = 0
    while True:
        order = list(range(len(items)))
        random.Random(seed + epoch).shuffle(order)
        for index in order:
            taken.append(items[index])
            held += tokens(items[index])
            if held >= tokens_per_step:
                yield taken
                taken, held = [], 0
        epoch += 1


def count_steps(items: list[Item], tokens_per_step: int, seed: int, epochs: float) -> int:
    """Steps until `epochs` passes over the items are done (a fraction counts)."""
    left = epochs * len(items)
    for number, taken in enumerate(steps(items, tokens_per_step, seed), 1):
        left -= len(taken)
        if left <= 0:
            return number
    raise AssertionError("steps never end")


def micro_batches(items: list[Item], most_tokens: int) -> Iterator[list[Item]]:
    """Items of like length together, at most `most_tokens` a batch, padding included (a single
    longer item stands alone)."""
    batch: list[Item] = []
    rows = 0
    for item in sorted(items, key=longest):
        rows += len(item.sequences)
        if batch and longest(item) * rows > most_tokens:
            yield batch
            batch, rows = [], len(item.sequences)
        batch.append(item)
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

    width = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED)
    for row, example in enumerate(batch):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        labels[row, example.prompt : length] = ids[row, example.prompt : length]
    return ids.to(device), labels.to(device)
