"""From a judge's words to a verdict, and from many verdicts to one.

Letters are always explicit: a judge's own letters name the places A and B *as shown*; a pair's
letters name its responses. In order BA the two differ, and :func:`swap` is the only way between.
A parse failure is never a tie: it is counted apart everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from selftaught.judging.templates import JudgeTemplate, Order


class Verdict(StrEnum):
    """What a judgment says."""

    A = "A"
    B = "B"
    TIE = "tie"
    UNPARSABLE = "unparsable"


def parse_verdict(text: str, template: JudgeTemplate, finished: bool = True) -> Verdict:
    """The verdict of a judgment, in the letters as shown.

    Strict: exactly one of the template's marks occurs in the whole text, and it occurs in the last
    line that is not blank. Anything else (none, two different ones, one that is only mentioned on
    the way, a text cut off by the length limit: `finished` false) is unparsable.
    """
    found = [name for name, mark in template.verdicts.items() if mark in text]
    if not finished or len(found) != 1:
        return Verdict.UNPARSABLE
    last_line = text.rstrip().rpartition("\n")[2]
    return Verdict(found[0]) if template.verdicts[found[0]] in last_line else Verdict.UNPARSABLE


def swap(verdict: Verdict) -> Verdict:
    """The same verdict in the other order's letters."""
    return {Verdict.A: Verdict.B, Verdict.B: Verdict.A}.get(verdict, verdict)


@dataclass(frozen=True)
class Combined:
    """A pair's verdict from both orders; `agree`: both orders named the same outcome."""

    verdict: Verdict
    agree: bool


def combine(ab: Verdict, ba: Verdict) -> Combined:
    """One verdict in the pair's letters from two in the letters as shown.

    Disagreement is a tie with `agree` false. If either could not be parsed, so is the whole.
    """
    ba = swap(ba)
    if Verdict.UNPARSABLE in (ab, ba):
        return Combined(Verdict.UNPARSABLE, agree=False)
    return Combined(ab, agree=True) if ab == ba else Combined(Verdict.TIE, agree=False)


@dataclass(frozen=True)
class Tally:
    """Votes counted: `share` is votes for `verdict` / all votes, parse failures included."""

    verdict: Verdict
    share: float
    votes: dict[Verdict, int]


def tally(votes: Sequence[Verdict]) -> Tally:
    """The majority among the parsed votes.

    Two or more verdicts level at the top make a tie (with the share of votes that said tie, which
    may be 0); no parsed vote makes it unparsable. Raises ValueError without votes.
    """
    if not votes:
        raise ValueError("no votes")
    counts = Counter(votes)
    parsed = {v: n for v, n in counts.items() if v is not Verdict.UNPARSABLE}
    if not parsed:
        return Tally(Verdict.UNPARSABLE, 1.0, dict(counts))
    most = max(parsed.values())
    first = [v for v, n in parsed.items() if n == most]
    winner = first[0] if len(first) == 1 else Verdict.TIE
    return Tally(winner, counts[winner] / len(votes), dict(counts))


@dataclass(frozen=True)
class Judged:
    """A pair's verdict from all votes, in the pair's letters.

    `confidence`: votes for `verdict` / all votes over all orders. `agree`: None for one order.
    """

    verdict: Verdict
    confidence: float
    agree: bool | None
    orders: dict[Order, Tally]
    parse_failures: int


def aggregate(ab: Sequence[Verdict], ba: Sequence[Verdict] | None = None) -> Judged:
    """Majority within each order, then :func:`combine` over the orders.

    `ab` and `ba` are votes in the letters as shown; the result is in the pair's letters throughout.
    """
    orders: dict[Order, Tally] = {"AB": tally(ab)}
    if ba is not None:
        orders["BA"] = tally([swap(v) for v in ba])
    votes = [*ab, *(swap(v) for v in ba or ())]
    if ba is None:
        verdict, agree = orders["AB"].verdict, None
    else:
        both = combine(orders["AB"].verdict, swap(orders["BA"].verdict))
        verdict, agree = both.verdict, both.agree
    return Judged(verdict, _share(votes, verdict), agree, orders, votes.count(Verdict.UNPARSABLE))


def settle(
    judged: Judged, votes: Sequence[Verdict], log_odds: float | None, coin: Verdict
) -> Judged:
    """The same with A or B in place of a tie, where no tie is wanted.

    `votes`: all that were cast, of both orders, in the pair's letters. The verdict is that of the
    log-odds (A against B, over both orders) if they are known; else that of the more votes; if
    these are level, `coin`. One order that could be read is enough; if nothing could be, it stays
    unparsable. `confidence` stays the share of all votes for the verdict, and may be 0.
    """
    if judged.verdict in (Verdict.A, Verdict.B) or set(votes) <= {Verdict.UNPARSABLE}:
        return judged
    counts = Counter(votes)
    lead = log_odds or counts[Verdict.A] - counts[Verdict.B]
    verdict = coin if not lead else Verdict.A if lead > 0 else Verdict.B
    return replace(judged, verdict=verdict, confidence=_share(votes, verdict))


def _share(votes: Iterable[Verdict], verdict: Verdict) -> float:
    counts = Counter(votes)
    return counts[verdict] / counts.total()
