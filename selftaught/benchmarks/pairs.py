"""Any labelled set: prompt (or instruction), chosen, rejected, and maybe subset and id.

There is no official script; `official` scores as RewardBench does (one order drawn per row, right
1, wrong 0, no verdict 0.5), over all rows and by subset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from selftaught.benchmarks.base import (
    BadRow,
    Benchmark,
    Example,
    Judgments,
    NumberedRow,
    Score,
)
from selftaught.benchmarks.pairwise import (
    one_order,
    one_order_points,
    points_score,
    pooled,
    strict_score,
)
from selftaught.contracts import Scoring
from selftaught.judging import Verdict

NAME = "pairs"


def read(rows: Iterable[NumberedRow]) -> Iterator[Example]:
    for number, row in rows:
        instruction = row.get("instruction", row.get("prompt"))
        if not isinstance(instruction, str):
            raise BadRow(number, "prompt", "missing" if instruction is None else "not a string")
        BENCHMARK.check(number, row)
        subset = row.get("subset")
        if subset is not None and not isinstance(subset, str):
            raise BadRow(number, "subset", "not a string")
        name = row.get("id")
        yield Example(
            f"r{number}" if name in (None, "") else str(name),
            instruction,
            (row["chosen"], row["rejected"]),
            Verdict.A,
            subset or None,
        )


def score(examples: Sequence[Example], judgments: Judgments, scoring: Scoring, seed: int) -> Score:
    if scoring == "strict":
        return strict_score(NAME, examples, judgments, seed, pooled)
    points, counts = one_order_points(examples, judgments, seed)
    return points_score(NAME, examples, points, seed, pooled, counts)


BENCHMARK = Benchmark(NAME, {"chosen": str, "rejected": str}, read, one_order, score)
