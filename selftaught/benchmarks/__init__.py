"""Published benchmarks: how their rows are read, what a judge is asked, how it is scored.

Every benchmark has two scorings. `official` follows its own published script to the letter, with
whatever that script draws at random drawn from a recorded seed. `strict` asks in both orders and
counts a pair as right only if it is right in both.
"""

from selftaught.benchmarks.base import (
    Answer,
    BadRow,
    Benchmark,
    Example,
    Judgments,
    Score,
    Shown,
)
from selftaught.benchmarks.catalogue import BENCHMARKS, find, load

__all__ = [
    "BENCHMARKS",
    "Answer",
    "BadRow",
    "Benchmark",
    "Example",
    "Judgments",
    "Score",
    "Shown",
    "find",
    "load",
]
