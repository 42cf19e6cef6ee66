"""LLMBar (Zeng et al. 2023, arXiv 2310.07641), in its original format, one file per subset.

Official script: LLMEvaluator/evaluate.py of its repository. Both orders; `overall` is the mean of
the two orders' accuracies, `both` the share right in both, `equal` the share with the same verdict
in both; anything but a verdict for the labelled output is wrong. The published average over the
adversarial set is the plain mean of its four subsets' overalls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from selftaught.benchmarks.base import (
    AB,
    BA,
    BadRow,
    Benchmark,
    Example,
    Judgments,
    NumberedRow,
    Score,
)
from selftaught.benchmarks.pairwise import (
    both_orders,
    points_score,
    pooled,
    right_in,
    strict_score,
)
from selftaught.contracts import Scoring
from selftaught.judging import Verdict, swap

NAME = "llmbar"
LABELS = {1: Verdict.A, 2: Verdict.B}


def read(rows: Iterable[NumberedRow]) -> Iterator[Example]:
    for number, row in rows:
        BENCHMARK.check(number, row)
        if row["label"] not in LABELS:
            raise BadRow(number, "label", f"{row['label']!r} is neither 1 nor 2")
        yield Example(
            f"r{number}", row["input"], (row["output_1"], row["output_2"]), LABELS[row["label"]]
        )


def score(examples: Sequence[Example], judgments: Judgments, scoring: Scoring, seed: int) -> Score:
    if scoring == "strict":
        return strict_score(NAME, examples, judgments, seed, pooled)
    points = {}
    for example in examples:
        right = [right_in(example, judgments, order) for order in (AB, BA)]
        same = judgments.official(example, AB) is swap(judgments.official(example, BA))
        points[example.id] = {
            "": sum(right) / 2,
            "both": float(all(right)),
            "equal": float(same),
        }
    return points_score(NAME, examples, points, seed)


BENCHMARK = Benchmark(
    NAME,
    {"input": str, "output_1": str, "output_2": str, "label": int},
    read,
    both_orders,
    score,
)
