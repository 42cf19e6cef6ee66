"""What all benchmarks share: examples, what is shown to the judge, what it said, scores."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from selftaught.benchmarks.statistics import Estimate
from selftaught.contracts import Scoring
from selftaught.hashing import stable_seed
from selftaught.judging import JudgeTemplate, Verdict, parse_verdict, tally

Shown = tuple[int, ...]
"""Which responses of an example are shown, in which order: (0, 1) and (1, 0) are a pair's two
orders, four numbers ask for the best of four, one asks for a rating from 1 to 10."""

AB: Shown = (0, 1)
BA: Shown = (1, 0)

Row = dict[str, Any]
NumberedRow = tuple[int, Row]
T = TypeVar("T")

_RATING = re.compile(r"\b([1-9]|10)\b\s*$")
FOUR = ("[[A]]", "[[B]]", "[[C]]", "[[D]]")


class BadRow(ValueError):
    """A row that cannot be used. `row` counts from 1; `field` is the benchmark's own name."""

    def __init__(self, row: int, field: str | None, message: str) -> None:
        where = f"row {row}" if field is None else f"row {row}, {field}"
        super().__init__(f"{where}: {message}")
        self.row, self.field, self.message = row, field, message


@dataclass(frozen=True)
class Example:
    """One thing to judge.

    What `truth` is, each benchmark says for itself: a verdict, several, or a number.
    """

    id: str
    instruction: str
    responses: tuple[str, ...]
    truth: Any
    subset: str | None = None

    def to_row(self) -> Row:
        """As JSON keeps it."""
        return asdict(self)

    @staticmethod
    def from_row(row: Row) -> Example:
        """The inverse of `to_row`."""
        truth: Any = row["truth"]
        if isinstance(truth, str):
            truth = Verdict(truth)
        elif isinstance(truth, list):
            truth = tuple(Verdict(one) for one in truth)
        return Example(row["id"], row["instruction"], tuple(row["responses"]), truth, row["subset"])


@dataclass(frozen=True)
class Answer:
    """One vote: what the judge wrote; `finished`: it ended by itself."""

    text: str
    finished: bool = True


@dataclass(frozen=True)
class Judgments:
    """The judge's answers, and the two ways to read a verdict in them.

    Of several votes on one question the majority of those with a verdict counts; level ones make a
    tie. Verdicts are in the letters as shown. Raises KeyError for something that was never asked.
    """

    template: JudgeTemplate
    answers: Mapping[tuple[str, Shown], Sequence[Answer]]

    def official(self, example: Example, shown: Shown) -> Verdict:
        """As the benchmarks' own scripts read it: the first of A, B, tie that occurs anywhere.

        So a text with both marks says A, and a text without any is unparsable.
        """
        return tally(
            [self._first_mark(vote.text) for vote in self.answers[example.id, shown]]
        ).verdict

    def _first_mark(self, text: str) -> Verdict:
        marks = self.template.verdicts
        for name in ("A", "B", "tie"):
            if name in marks and marks[name] in text:
                return Verdict(name)
        return Verdict.UNPARSABLE

    def strict(self, example: Example, shown: Shown) -> Verdict:
        """As /judge reads it: exactly one mark, in the last line, of a finished text."""
        votes = self.answers[example.id, shown]
        return tally(
            [parse_verdict(vote.text, self.template, vote.finished) for vote in votes]
        ).verdict

    def best_of_four(self, example: Example, shown: Shown) -> int | None:
        """Which place (0 to 3) was called best: the first of [[A]] .. [[D]] that occurs.

        None without one, and where two places have equally many votes.
        """
        said = Counter(
            next((place for place, mark in enumerate(FOUR) if mark in vote.text), None)
            for vote in self.answers[example.id, shown]
        )
        del said[None]
        best = [place for place, votes in said.items() if votes == max(said.values())]
        return best[0] if len(best) == 1 else None

    def rating(self, example: Example, response: int) -> float:
        """The number from 1 to 10 at the text's end, as a mean over the votes; -1 without one."""
        said = [_RATING.search(vote.text.strip()) for vote in self.answers[example.id, (response,)]]
        numbers = [int(found.group(1)) for found in said if found]
        return sum(numbers) / len(numbers) if numbers else -1


@dataclass(frozen=True)
class Score:
    """One scoring of one benchmark.

    `figures`: name -> estimate, the most important first (`overall` where the benchmark defines
    one, `section/..`, `subset/..`). `counts`: plain numbers on the way. `rights`: example id ->
    points, for paired tests between two versions.
    """

    benchmark: str
    scoring: Scoring
    figures: dict[str, Estimate]
    counts: dict[str, int]
    rights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A published format.

    `needs`: the fields by which it is recognised, with their types; other fields are ignored.
    `read`: numbered rows -> examples, raising BadRow. `asks`: what is shown for one example.
    `score`: everything asked -> a score; `seed` is the one that `asks` was given.
    """

    name: str
    needs: Mapping[str, type | tuple[type, ...]]
    read: Callable[[Iterable[NumberedRow]], Iterator[Example]]
    asks: Callable[[Example, Scoring, int], list[Shown]]
    score: Callable[[Sequence[Example], Judgments, Scoring, int], Score]

    def check(self, number: int, row: Row) -> None:
        """Raise BadRow, naming the field, for a missing field or one of a wrong type."""
        for name, kind in self.needs.items():
            if name not in row:
                raise BadRow(number, name, "missing")
            if not isinstance(row[name], kind) or isinstance(row[name], bool):
                kinds = kind if isinstance(kind, tuple) else (kind,)
                wanted = " or ".join(_JSON_NAMES[each] for each in kinds)
                raise BadRow(number, name, f"not {wanted}")


_JSON_NAMES = {str: "a string", int: "a whole number", float: "a number", list: "a list"}


def drawn_order(seed: int, example: Example) -> Shown:
    """AB or BA at random, depending on the seed and the example's id only."""
    return AB if stable_seed(seed, "order", example.id) % 2 else BA
