"""Chooses among the checkpoints of a run: the best judge of pairs it was not trained on wins.

They are held-out constructed pairs, so that no human label is involved, or labelled ones
(validate.choose_on). Reproducers saw judges peak before the last step, so the last one is not
simply the best one. Equal scores: the later checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selftaught.jsonl import Row
from selftaught.judging import JudgeTemplate
from selftaught.judging.scoring import score_pairs, summarise


@dataclass(frozen=True)
class Checkpoint:
    """A saved checkpoint and its score on those pairs (see scoring.summarise)."""

    step: int
    path: Path
    summary: dict[str, Any]

    @property
    def strict_accuracy(self) -> float:
        return float(self.summary["strict_accuracy"] or 0.0)


def steps(total: int, count: int) -> list[int]:
    """The steps after which to save: `count` of them, evenly spread, the last one included."""
    return sorted({max(1, round(total * (i + 1) / count)) for i in range(count)})


def score(
    step: int,
    path: Path,
    pairs: Sequence[Row],
    template: JudgeTemplate,
    max_tokens: int,
    quantize: Literal["none", "nf4"] = "none",
) -> Checkpoint:
    """Load a saved checkpoint here, its base held as in training, and score it on rows {id,
    instruction, chosen, rejected}."""
    from selftaught.inference.local import LocalEngine

    engine = LocalEngine(path, quantize=quantize)
    try:
        counts = score_pairs(engine, template, pairs, max_tokens)
    finally:
        engine.close()
    return Checkpoint(step, path, summarise(counts))


def choose(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The one with the highest strict accuracy, then mean accuracy, then the latest."""
    return max(
        checkpoints,
        key=lambda c: (c.strict_accuracy, float(c.summary["mean_accuracy"] or 0.0), c.step),
    )
