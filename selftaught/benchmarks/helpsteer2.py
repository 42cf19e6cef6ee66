"""HelpSteer2 (Wang et al. 2024, arXiv 2406.08673) as pairs, as the Self-Taught Evaluator used it.

Consecutive rows share a prompt; two that differ in helpfulness are a pair, the more helpful one
better; pairs that do not differ are left out. Metrics of arXiv 2408.02666: mean accuracy over both
orders (`overall`), and the share right in both (`both`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from selftaught.benchmarks.base import (
    AB,
    BA,
    BadRow,
    Benchmark,
    Example,
    Judgments,
    NumberedRow,
    Row,
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
from selftaught.judging import Verdict

NAME = "helpsteer2"


def read(rows: Iterable[NumberedRow]) -> Iterator[Example]:
    """Rows 1 and 2, 3 and 4, ... of one prompt; a prompt's odd last row has no partner."""
    for group in _by_prompt(rows):
        for (number, first), (_, second) in list(pairwise(group))[::2]:
            if first["helpfulness"] == second["helpfulness"]:
                continue
            better = Verdict.A if first["helpfulness"] > second["helpfulness"] else Verdict.B
            responses = (first["response"], second["response"])
            yield Example(f"r{number}", first["prompt"], responses, better)


def _by_prompt(rows: Iterable[NumberedRow]) -> Iterator[list[tuple[int, Row]]]:
    group: list[tuple[int, Row]] = []
    for number, row in rows:
        BENCHMARK.check(number, row)
        if not 0 <= row["helpfulness"] <= 4:
            raise BadRow(number, "helpfulness", "not between 0 and 4")
        if group and row["prompt"] != group[0][1]["prompt"]:
            yield group
            group = []
        group.append((number, row))
    if group:
        yield group


def score(examples: Sequence[Example], judgments: Judgments, scoring: Scoring, seed: int) -> Score:
    if scoring == "strict":
        return strict_score(NAME, examples, judgments, seed, pooled)
    points = {}
    for example in examples:
        right = [right_in(example, judgments, order) for order in (AB, BA)]
        points[example.id] = {"": sum(right) / 2, "both": float(all(right))}
    return points_score(NAME, examples, points, seed)


BENCHMARK = Benchmark(
    NAME,
    {"prompt": str, "response": str, "helpfulness": (int, float)},
    read,
    both_orders,
    score,
)
