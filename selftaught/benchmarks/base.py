"""What all benchmarks share: examples, what is shown to the judge, what it said, scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from selftaught.benchmarks.statistics import Estimate
from selftaught.hashing import stable_seed
from selftaught.judging import JudgeTemplate, Verdict, parse_verdict

Scoring = Literal["official", "strict"]
SCORINGS: tuple[Scoring, ...] = ("official", "strict")

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
    """One thing to judge. What `truth` is, each benchmark says for itself."""

    id: str
    instruction: str
    responses: tuple[str, ...]
    truth: Any
    subset: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the judge wrote; `finished`: it ended by itself."""

    text: str
    finished: bool = True


@dataclass(frozen=True)
class Judgments:
    """The judge's answers, and the two ways to read a verdict in them.

    Verdicts are in the letters as shown. Raises KeyError for something that was never asked.
    """

    template: JudgeTemplate
    answers: Mapping[tuple[str, Shown], Answer]

    def official(self, example: Example, shown: Shown) -> Verdict:
        """As the benchmarks' own scripts read it: the first of A, B, tie that occurs anywhere.

        So a text with both marks says A, and a text without any is unparsable.
        """
        text = self.answers[example.id, shown].text
        marks = self.template.verdicts
        for name in ("A", "B", "tie"):
            if name in marks and marks[name] in text:
                return Verdict(name)
        return Verdict.UNPARSABLE

    def strict(self, example: Example, shown: Shown) -> Verdict:
        """As /judge reads it: exactly one mark, in the last line, of a finished text."""
        answer = self.answers[example.id, shown]
        return parse_verdict(answer.text, self.template, answer.finished)

    def best_of_four(self, example: Example, shown: Shown) -> int | None:
        """Which place (0 to 3) was called best: the first of [[A]] .. [[D]] that occurs."""
        text = self.answers[example.id, shown].text
        return next((place for place, mark in enumerate(FOUR) if mark in text), None)

    def rating(self, example: Example, response: int) -> int:
        """The number from 1 to 10 at the text's end; -1 if there is none."""
        found = _RATING.search(self.answers[example.id, (response,)].text.strip())
        return int(found.group(1)) if found else -1


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
