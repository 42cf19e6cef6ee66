"""JudgeBench (Tan et al. 2024, arXiv 2410.12784).

Official script: utils/metrics.py of its repository. Both orders; a pair counts as right when the
verdicts that match the label outnumber those that say the opposite, so one right verdict and one
tie is right. Papers often require both to be right: that is `both/..` here. Printed over all and by
source: mmlu-pro, livebench-reasoning, livebench-math, livecodebench.
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
    strict_score,
)
from selftaught.contracts import Scoring
from selftaught.judging import Verdict, swap

NAME = "judgebench"
SOURCES = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
LABELS = {"A>B": Verdict.A, "B>A": Verdict.B}


def read(rows: Iterable[NumberedRow]) -> Iterator[Example]:
    for number, row in rows:
        BENCHMARK.check(number, row)
        if row["label"] not in LABELS:
            raise BadRow(number, "label", f"{row['label']!r} is neither 'A>B' nor 'B>A'")
        subset = next((name for name in SOURCES if row["source"].startswith(name)), row["source"])
        yield Example(
            row["pair_id"],
            row["question"],
            (row["response_A"], row["response_B"]),
            LABELS[row["label"]],
            subset,
        )


def score(examples: Sequence[Example], judgments: Judgments, scoring: Scoring, seed: int) -> Score:
    if scoring == "strict":
        return strict_score(NAME, examples, judgments, seed, pooled)
    points = {}
    no_verdict = inconsistent = 0
    for example in examples:
        said = judgments.official(example, AB), swap(judgments.official(example, BA))
        matches = sum(verdict is example.truth for verdict in said)
        opposite = sum(verdict is swap(example.truth) for verdict in said)
        points[example.id] = {"": float(matches > opposite), "both": float(matches == 2)}
        no_verdict += Verdict.UNPARSABLE in said
        inconsistent += said[0] != said[1]
    counts = {"no_verdict": no_verdict, "inconsistent": inconsistent}
    return points_score(NAME, examples, points, seed, pooled, counts)


BENCHMARK = Benchmark(
    NAME,
    {
        "pair_id": str,
        "source": str,
        "question": str,
        "response_A": str,
        "response_B": str,
        "label": str,
    },
    read,
    both_orders,
    score,
)
