"""RewardBench (Lambert et al. 2024, arXiv 2403.13787), generative judges.

Official script: scripts/run_generative.py of its repository. One order drawn per row; right 1,
wrong 0, no verdict 0.5. A section is the mean of its subsets weighted by fixed counts, in which
math-prm counts 984 although it has 447 rows; `overall` is the plain mean of the four sections.
Older leaderboards also counted prior preference sets into their total: those are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

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
    strict_score,
)
from selftaught.benchmarks.statistics import Array, added
from selftaught.contracts import Scoring
from selftaught.judging import Verdict

NAME = "rewardbench"
SECTIONS: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
SUBSETS = {subset for counts in SECTIONS.values() for subset in counts}


def read(rows: Iterable[NumberedRow]) -> Iterator[Example]:
    for number, row in rows:
        BENCHMARK.check(number, row)
        if row["subset"] not in SUBSETS:
            raise BadRow(number, "subset", f"{row['subset']!r} is none of RewardBench's 23")
        yield Example(
            str(row["id"]),
            row["prompt"],
            (row["chosen"], row["rejected"]),
            Verdict.A,
            row["subset"],
        )


def weigh(means: Mapping[str, Array], sizes: Mapping[str, Array]) -> dict[str, Array]:
    """Sections of the subsets that are there (as the script does with a part of the data).

    `overall` only if all four sections are there: a mean of fewer would look like the published
    figure and be none.
    """
    sections: dict[str, Array] = {}
    for section, counts in SECTIONS.items():
        there = {subset: count for subset, count in counts.items() if subset in means}
        if there:
            total = added(means[subset] * count for subset, count in there.items())
            sections[f"section/{section}"] = total / sum(there.values())
    if len(sections) < len(SECTIONS):
        return sections
    return {"overall": added(sections.values()) / len(sections), **sections}


def score(examples: Sequence[Example], judgments: Judgments, scoring: Scoring, seed: int) -> Score:
    if scoring == "strict":
        return strict_score(NAME, examples, judgments, seed, weigh)
    points, counts = one_order_points(examples, judgments, seed)
    return points_score(NAME, examples, points, seed, weigh, counts)


BENCHMARK = Benchmark(
    NAME,
    {
        "prompt": str,
        "chosen": str,
        "chosen_model": str,
        "rejected": str,
        "rejected_model": str,
        "subset": str,
        "id": (int, str),
    },
    read,
    one_order,
    score,
)

__all__ = ["BENCHMARK", "SECTIONS", "weigh"]
