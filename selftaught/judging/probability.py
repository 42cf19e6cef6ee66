"""How likely each verdict was, from the token alternatives where a judgment's marks part.

A judgment ends with a mark, say `[[A]]`. Up to `[[` all marks are the same; at the token that
writes the `A` they part, and what else the model might have written there says how sure it was.
Over both orders the log-odds of A against B are averaged, so that a judge's liking for a place
cancels; their scale is then corrected by a temperature (calibration.py).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import NamedTuple

from selftaught.judging.templates import JudgeTemplate
from selftaught.judging.verdicts import Verdict

TOP = 5
"""Alternatives that are asked for at each token; no server takes fewer."""
TAIL = 16
"""Last tokens of a completion in which its mark is looked for."""
LEAST = -50.0
"""Lowest log-probability that is told apart from none."""


class Token(NamedTuple):
    """A token that was written: its text, log-probability, and the most likely ones at its place.

    `top` may or may not hold the token itself.
    """

    text: str
    logprob: float
    top: Sequence[tuple[str, float]]


def mark_logprobs(tail: Sequence[Token], marks: Sequence[str]) -> tuple[float, ...] | None:
    """Log-probability of each mark at the place where the tail wrote one; together they are 1.

    Let m be the mark that was written last. Another mark j parts from it at the token t_j that
    wrote the first character in which they differ. An alternative there counts for a mark if the
    mark goes on with it, or it with the mark, and so does no other mark; blanks before a mark make
    no difference. With p(x, t) the summed probability of what counts for x at t, along the tokens t
    at which marks part:

        P(m) ~ product over all t of p(m, t)
        P(j) ~ p(j, t_j) * product over all t before t_j of p(m, t)

    A mark without a listed alternative is at most as likely as the last one listed, and is taken to
    be so: what was written never looks more certain than it was. None if the tail holds no mark, or
    fewer than two alternatives were listed.
    """
    text = "".join(token.text for token in tail)
    start, mine = max((text.rfind(mark), mark) for mark in marks)
    if start < 0:
        return None
    begins = [0, *accumulate(len(token.text) for token in tail)]
    partings: dict[int, list[str]] = {}  # token -> the marks that part from mine there
    for other in marks:
        if other != mine:
            place = start + _common(mine, other)
            partings.setdefault(bisect_right(begins, place) - 1, []).append(other)
    found: dict[str, float] = {}
    so_far = 0.0  # log-probability of mine, up to here
    for index in sorted(partings):
        begin, others = begins[index], partings[index]
        if len(tail[index].top) < 2:
            return None
        lead, inside = text[begin:start], max(0, begin - start)
        blank = begin <= start and not lead.strip()
        expected = {mark: lead + mark[inside:] for mark in (mine, *others)}
        here = _shares(tail[index], expected, blank)
        found |= {other: so_far + here[other] for other in others}
        so_far += here[mine]
    found[mine] = so_far
    total = math.log(sum(math.exp(value) for value in found.values()))
    return tuple(max(LEAST, found[mark] - total) for mark in marks)


def _common(one: str, other: str) -> int:
    """Characters that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _shares(token: Token, expected: Mapping[str, str], blank: bool) -> dict[str, float]:
    """By mark: log of the probability here of what begins what the mark expects to be written;
    `blank`: blanks before it make no difference."""
    options = list(token.top)
    if token.text not in [text for text, _ in options]:
        options.append((token.text, token.logprob))
    masses = dict.fromkeys(expected, 0.0)
    for text, logprob in options:
        said = text.lstrip() if blank else text
        counts = []
        for mark, wanted in expected.items():
            rest = wanted.lstrip() if blank else wanted
            if said and (rest.startswith(said) or said.startswith(rest)):
                counts.append(mark)
        if len(counts) == 1:
            masses[counts[0]] += math.exp(logprob)
    least = max(LEAST, min(logprob for _, logprob in token.top))
    return {mark: math.log(mass) if mass else least for mark, mass in masses.items()}


@dataclass(frozen=True)
class Probability:
    """Of the verdicts on a pair: the log-odds of A against B, and the probability of a tie.

    `a`, `b` and `tie` sum to 1. A template without a mark for ties has tie 0.
    """

    log_odds: float
    tie: float

    @property
    def a(self) -> float:
        return (1 - self.tie) * sigmoid(self.log_odds)

    @property
    def b(self) -> float:
        return (1 - self.tie) * sigmoid(-self.log_odds)

    def swapped(self) -> Probability:
        """The same in the other order's letters."""
        return Probability(-self.log_odds, self.tie)

    def without_tie(self) -> Probability:
        """Given that one of the two is better."""
        return Probability(self.log_odds, 0.0)


def of_votes(
    template: JudgeTemplate, votes: Iterable[tuple[Verdict, tuple[float, ...] | None]]
) -> Probability | None:
    """From the mean of the probabilities over the votes of one order, in the letters as shown.

    A vote is its verdict and the log-probabilities of the template's marks; one that was not
    parsed, or whose log-probabilities nobody gave, does not count. None if none counts.
    """
    counted = [
        {name: math.exp(value) for name, value in zip(template.verdicts, logprobs, strict=True)}
        for verdict, logprobs in votes
        if verdict is not Verdict.UNPARSABLE and logprobs is not None
    ]
    if not counted:
        return None
    a, b, tie = (fmean(vote.get(name, 0.0) for vote in counted) for name in ("A", "B", "tie"))
    return Probability(math.log(a) - math.log(b), tie)


def over_orders(orders: Sequence[Probability], temperature: float = 1.0) -> Probability:
    """The pair's probability from those of its orders, all in the pair's letters.

    The log-odds of A against B are the mean over the orders, divided by the temperature: what a
    judge adds for a place it adds once for each response, so it cancels. The probability of a tie
    is the mean over the orders, as it is.
    """
    log_odds = fmean(one.log_odds for one in orders) / temperature
    return Probability(log_odds, fmean(one.tie for one in orders))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
