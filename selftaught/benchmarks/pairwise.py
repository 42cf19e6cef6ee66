"""Scoring of pairs whose better response is known: an example's truth is its place, A or B.

`responses` stand as published; in order AB the first is shown as A. The figures of one kind of
point (`overall`, `section/..`, `subset/..`) go through a benchmark's own weighting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from selftaught.benchmarks.base import (
    AB,
    BA,
    Example,
    Judgments,
    Score,
    Shown,
    drawn_order,
)
from selftaught.benchmarks.statistics import Array, Sums, Unit, added, bootstrap, ratio
from selftaught.contracts import Scoring
from selftaught.judging import Verdict, swap
from selftaught.judging.scoring import count_pair

Weigh = Callable[[Mapping[str, Array], Mapping[str, Array]], dict[str, Array]]
"""(subset -> mean, subset -> number of examples) -> named totals."""


def pooled(means: Mapping[str, Array], sizes: Mapping[str, Array]) -> dict[str, Array]:
    """`overall`: the mean over all examples."""
    right = added(means[name] * sizes[name] for name in means)
    return {"overall": ratio(right, added(sizes.values()))}


def both_orders(example: Example, scoring: Scoring, seed: int) -> list[Shown]:
    return [AB, BA]


def one_order(example: Example, scoring: Scoring, seed: int) -> list[Shown]:
    """Official scripts that ask once, in an order drawn at random; strict asks both."""
    return [drawn_order(seed, example)] if scoring == "official" else [AB, BA]


def strict_score(
    name: str, examples: Sequence[Example], judgments: Judgments, seed: int, weigh: Weigh
) -> Score:
    """Right only if right in both orders.

    Figures besides the weighed ones: mean_accuracy, accuracy_winner_first, accuracy_winner_last,
    position_bias, ties, parse_failures, each as in scoring.summarise, over all examples.
    """
    units, rights, counts = [], {}, {"examples": len(examples), "parse_failures": 0, "ties": 0}
    for example in examples:
        ab, ba = (judgments.strict(example, order) for order in (AB, BA))
        if example.truth is Verdict.B:  # count_pair wants the better response to be A in AB
            ab, ba = ba, ab
        one = count_pair(ab, ba)
        rights[example.id] = float(one["strict_right"])
        counts["parse_failures"] += one["parse_failures"]
        counts["ties"] += one["ties"]
        units.append(Unit(example.subset or "", {k: float(v) for k, v in one.items() if k != "n"}))

    def figures(sums: Sums) -> dict[str, Array]:
        total = {k: added(s[k] for s in sums.values()) for k in next(iter(sums.values()))}
        n, a, b = total["n"], total["verdict_a"], total["verdict_b"]
        return {
            **_weighed(sums, "strict_right", weigh),
            "mean_accuracy": ratio(total["right_ab"] + total["right_ba"], 2 * n),
            "accuracy_winner_first": ratio(total["right_ab"], n),
            "accuracy_winner_last": ratio(total["right_ba"], n),
            "position_bias": ratio(a - b, a + b),
            "ties": ratio(total["ties"], n),
            "parse_failures": ratio(total["parse_failures"], 2 * n),
        }

    return Score(name, "strict", bootstrap(units, figures, seed), counts, rights)


def points_score(
    name: str,
    examples: Sequence[Example],
    points: Mapping[str, Mapping[str, float]],
    seed: int,
    weigh: Weigh = pooled,
    counts: Mapping[str, int] | None = None,
) -> Score:
    """Official scoring from points by example id: each point's name becomes a set of figures.

    The point `""` is the benchmark's own score: its figures have no prefix.
    """
    units = [Unit(example.subset or "", points[example.id]) for example in examples]
    kinds = sorted({kind for one in points.values() for kind in one})

    def figures(sums: Sums) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for kind in kinds:
            prefix = f"{kind}/" if kind else ""
            found |= {prefix + key: v for key, v in _weighed(sums, kind, weigh).items()}
        return found

    rights = {name: one[""] for name, one in points.items()}
    return Score(
        name,
        "official",
        bootstrap(units, figures, seed),
        {"examples": len(examples), **(counts or {})},
        rights,
    )


def one_order_points(
    examples: Sequence[Example], judgments: Judgments, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Right 1, wrong 0, anything else (a tie's mark too) 0.5, in the drawn order."""
    points, unparsable = {}, 0
    for example in examples:
        order = drawn_order(seed, example)
        verdict = judgments.official(example, order)
        better = example.truth if order == AB else swap(example.truth)
        if verdict in (Verdict.A, Verdict.B):
            points[example.id] = {"": float(verdict is better)}
        else:
            points[example.id] = {"": 0.5}
            unparsable += 1
    return points, {"no_verdict": unparsable}


def right_in(example: Example, judgments: Judgments, order: Shown) -> bool:
    """The official verdict in this order names the better response."""
    better = example.truth if order == AB else swap(example.truth)
    return judgments.official(example, order) is better


def _weighed(sums: Sums, column: str, weigh: Weigh) -> dict[str, Array]:
    means = {name: ratio(one[column], one["n"]) for name, one in sums.items()}
    found = weigh(means, {name: one["n"] for name, one in sums.items()})
    return found | {f"subset/{name}": mean for name, mean in means.items() if name}
