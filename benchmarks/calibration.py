"""How much a judge's confidence is worth: vote share, probability, calibrated probability.

    python -m benchmarks.calibration [--model FOLDER] [--limit 300]

Judges the shipped dev and test pairs of the small world, greedily in both orders (the shipped seed,
or a version's folder). The temperature is fitted on the dev pairs; everything is measured on the
test pairs. `--limit`: pairs of each, drawn by a fixed seed; 0 takes all. Prints Markdown.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from benchmarks import machine
from selftaught import jsonl
from selftaught.inference.local import LocalEngine
from selftaught.judging import load_judge_template
from selftaught.judging.calibration import BINS, Floats, fit, measures, reliability
from selftaught.judging.scoring import judge_outcomes

WORLD = Path(str(files("seeds"))) / "smallworld"
NEARLY = 0.99
"""A vote share of 1 as a probability: certainty would cost infinitely much when it is wrong."""


def main() -> None:
    """Judge, fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=WORLD)
    parser.add_argument("--limit", type=int, default=300)
    given = parser.parse_args()
    engine = LocalEngine(given.model)
    dev, _ = judged(engine, "dev", given.limit)
    odds, share = judged(engine, "test", given.limit)
    temperature = fit(dev)
    kinds = {"vote share": share, "probability": odds, "calibrated": odds / temperature}
    print(f"Temperature {temperature:.2f}, from {len(dev)} dev pairs; {len(odds)} test pairs.\n")
    print("| confidence | log loss | Brier | ECE |\n|---|---|---|---|")
    for name, values in kinds.items():
        found = measures(values)
        cells = [f"{found[one]:.3f}" for one in ("log_loss", "brier", "ece")]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n| says | {' | '.join(kinds)} |\n{'|---' * (1 + len(kinds))}|")
    tables = [reliability(values) for values in kinds.values()]
    for place in range(BINS):
        low = 0.5 + place / 20
        print(f"| {low:.2f} to {low + 0.05:.2f} | {' | '.join(cell(t, place) for t in tables)} |")
    print(f"\n{machine.name('torch')}")


def judged(engine: LocalEngine, split: str, limit: int) -> tuple[Floats, Floats]:
    """Log-odds of the better response, by the model's probability and by its two votes."""
    rows = list(jsonl.read(WORLD / "data" / f"{split}.jsonl"))
    if limit and limit < len(rows):
        rows = random.Random(0).sample(rows, limit)
    outcomes = judge_outcomes(engine, load_judge_template("smallworld"), rows, 64, sure=True)
    told = [one for one in outcomes if one["log_odds"] is not None]
    votes: Sequence[float] = [
        ((one["ab"] == "A") - (one["ab"] == "B") - (one["ba"] == "A") + (one["ba"] == "B")) / 2
        for one in told
    ]
    odds = np.array([one["log_odds"] for one in told], dtype=np.float64)
    # Both votes for one side: nearly 1. One against one, or ties: 0.5.
    share = 0.5 + (NEARLY - 0.5) * np.array(votes)
    return odds, np.log(share) - np.log1p(-share)


def cell(table: tuple[Floats, Floats, Floats], place: int) -> str:
    """Of a bin: share that was right, and how many pairs it has."""
    counts, right, _ = table
    return f"{right[place]:.2f} of {counts[place]:.0f}" if counts[place] else ""


if __name__ == "__main__":
    main()
