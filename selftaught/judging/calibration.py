"""Makes a judge's log-odds honest: one temperature, fitted on pairs whose better side is known.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599), symmetric and without an intercept, since
both orders were asked: P(A is better) = sigmoid(log_odds / temperature). The temperature is that of
the greatest likelihood, with Platt's targets (1999): as if the better side of each of n pairs had
been named rightly with probability (n + 1) / (n + 2), without which a judge that is always right
would have temperature 0.

The fit is only as good as its labels. Those of held-out pairs are constructed (one response answers
another instruction), so the temperature is right for pairs like them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEWEST = 30
"""Pairs without which no temperature is fitted."""
COLDEST, HOTTEST = 0.05, 100.0
BINS = 10


def calibrations(log_odds: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, Any]]:
    """A version's calibration, from its log-odds on each set; empty without enough held-out pairs.

    The temperature is fitted on `heldout` alone; on every set it is told what it does there:
    {temperature, n, unread, log_loss_before, log_loss_after, ece_.., brier_..} (:func:`measures`).
    Log-odds are those of the better response against the worse one; a None is a pair that could not
    be read, and is only counted.
    """
    read = {
        name: np.array([one for one in values if one is not None], dtype=np.float64)
        for name, values in log_odds.items()
    }
    if len(read.get("heldout", ())) < FEWEST:
        return {}
    temperature = fit(read["heldout"])
    found = {}
    for name, values in read.items():
        if len(values):
            told: dict[str, Any] = {"temperature": temperature, "n": len(values)}
            told["unread"] = len(log_odds[name]) - len(values)
            before, after = measures(values), measures(values / temperature)
            for measure in before:
                told[f"{measure}_before"] = before[measure]
                told[f"{measure}_after"] = after[measure]
            found[name] = told
    return found


def fit(log_odds: Floats) -> float:
    """The temperature of the greatest likelihood, within COLDEST and HOTTEST.

    The derivative of the log-loss by 1 / temperature only rises, so its zero is found by halving.
    """
    target = (len(log_odds) + 1) / (len(log_odds) + 2)
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = (low * high) ** 0.5
        slope = (log_odds * (_sigmoid(middle * log_odds) - target)).sum()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def measures(log_odds: Floats) -> dict[str, float]:
    """How good the probabilities are that follow from log-odds of the better response.

    log_loss: mean of -log P(better one), in nats; 0.693 is a coin's. brier: mean of
    (1 - P(better one))^2; 0.25 is a coin's. ece: expected calibration error of the likelier side's
    probability: mean over ten bins from 0.5 to 1, by their number of pairs, of |share that was
    right - mean probability|; log-odds of 0 are half right.
    """
    probability = _sigmoid(log_odds)
    counts, right, said = reliability(log_odds)
    filled = counts > 0
    gap = np.abs(right[filled] - said[filled])
    return {
        "log_loss": float(np.logaddexp(0, -log_odds).mean()),
        "ece": float((gap * counts[filled]).sum() / counts.sum()),
        "brier": float(((1 - probability) ** 2).mean()),
    }


def reliability(log_odds: Floats) -> tuple[Floats, Floats, Floats]:
    """By bin of the likelier side's probability, ten from 0.5 to 1: number of pairs, share that was
    right, mean probability (0 where there are none)."""
    said = _sigmoid(np.abs(log_odds))
    right = (np.sign(log_odds) + 1) / 2
    place = np.minimum(((said - 0.5) * 2 * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS).astype(np.float64)
    divisor = np.maximum(counts, 1)
    return (
        counts,
        np.bincount(place, right, BINS) / divisor,
        np.bincount(place, said, BINS) / divisor,
    )


def _sigmoid(x: Floats) -> Floats:
    found: Floats = np.exp(-np.logaddexp(0, -x))
    return found
