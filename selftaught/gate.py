"""The gate's rules: may this version take the incumbent's place? Pure functions of numbers.

Every rule that is asked gives its finding with the numbers, whether it passed or not, so that a
refusal can be read and argued with. All must pass. What they mean: docs/promotion.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from selftaught.contracts import Finding, GateSettings, ReviewRule, Rule

HELDOUT, LABELLED = "heldout", "labelled"
_Z = 1.959963984540054
_ROUNDING = 1e-9  # a margin of 0.02 is met by 0.77 against 0.75


@dataclass(frozen=True)
class Scored:
    """A version on one set.

    summary: as :func:`selftaught.judging.scoring.summarise` gives it. right: a character for each
    pair in the set's order, '1' if the pair was judged right in both orders, else '0'; None if that
    was not kept.
    """

    summary: Mapping[str, Any]
    right: str | None = None

    @property
    def accuracy(self) -> float | None:
        """Strict accuracy; None without a pair."""
        found: float | None = self.summary.get("strict_accuracy")
        return found


Sets = Mapping[str, Scored]  # by the set's name


class Reviewed(Protocol):
    """What people said of a version's judgments (selftaught.reviews.summary)."""

    @property
    def n(self) -> int: ...

    @property
    def agreement(self) -> float | None: ...


def decide(
    candidate: Sets, incumbent: Sets | None, settings: GateSettings, reviewed: Reviewed | None
) -> list[Finding]:
    """Every rule's finding about a candidate; it may be promoted if all have passed.

    Both sides are scored on the same pairs, set by set. `incumbent` is None when the alias names
    nothing yet: the first version has nothing to beat, and no rule is asked.
    """
    if incumbent is None:
        return [Finding(rule="first", passed=True, detail="the alias named no version yet")]
    findings = [margin(candidate.get(HELDOUT), incumbent.get(HELDOUT), settings.margin)]
    names = sorted({name for name in [*candidate, *incumbent] if name.startswith(LABELLED)})
    findings += [
        labelled(name, candidate.get(name), incumbent.get(name), settings.labelled_tolerance)
        for name in names
    ]
    findings += _limits(candidate, settings)
    if settings.reviews.minimum:
        findings.append(reviews(reviewed, settings.reviews))
    return findings


def seed(version: str, incumbent: str) -> Finding:
    """What a job begins with takes no version's place: its trained versions may."""
    told = f"{version} is the job's seed, and {incumbent} is there already: failed"
    return Finding(rule="seed", passed=False, detail=told)


def margin(candidate: Scored | None, incumbent: Scored | None, least: float) -> Finding:
    """Held-out strict accuracy must be above the incumbent's by the margin (0: not below it)."""
    got, theirs = _accuracy(candidate), _accuracy(incumbent)
    if got is None or theirs is None:
        return _unscored("margin", HELDOUT, got)
    needed = theirs + least
    return _finding("margin", HELDOUT, got >= needed - _ROUNDING, got, needed, "strict accuracy")


def labelled(
    name: str, candidate: Scored | None, incumbent: Scored | None, tolerance: float
) -> Finding:
    """Strict accuracy on a labelled set must not fall by more than the tolerance, unless chance
    can explain the fall: the paired 95 % interval of the difference reaches 0.

    Where the pairs' outcomes were not kept there is no interval, and the tolerance alone decides.
    """
    got, theirs = _accuracy(candidate), _accuracy(incumbent)
    if candidate is None or incumbent is None or got is None or theirs is None:
        return _unscored("labelled", name, got)
    needed = theirs - tolerance
    passed, note = got >= needed - _ROUNDING, ""
    interval = paired_interval(candidate.right, incumbent.right)
    if interval is not None:
        low, high = interval
        note = f" ({got - theirs:+.4f} against the incumbent, 95 % {low:+.4f} to {high:+.4f}"
        if not passed and high >= 0:
            passed, note = True, f"{note}, which chance can explain"
        note += ")"
    return _finding("labelled", name, passed, got, needed, "strict accuracy", note)


def _limits(candidate: Sets, settings: GateSettings) -> Iterator[Finding]:
    for name, scored in candidate.items():
        yield position_bias(name, scored.summary, settings.max_position_bias)
        yield parse_failures(name, scored.summary, settings.max_parse_failures)


def position_bias(name: str, summary: Mapping[str, Any], limit: float) -> Finding:
    """|position bias| must not be above the limit; a judge without any verdict fails."""
    bias = summary.get("position_bias")
    if bias is None:
        detail = f"{name}: no verdict, so no position bias; at most {limit:.4f}: failed"
        return Finding(
            rule="position_bias", passed=False, set=name, got=None, needed=limit, detail=detail
        )
    return _finding("position_bias", name, abs(bias) <= limit, abs(bias), limit, "|position bias|")


def parse_failures(name: str, summary: Mapping[str, Any], limit: float) -> Finding:
    """The share of judgments without a readable verdict must not be above the limit."""
    share = summary.get("parse_failures")
    got = 1.0 if share is None else float(share)
    return _finding("parse_failures", name, got <= limit, got, limit, "parse failures")


def reviews(reviewed: Reviewed | None, rule: ReviewRule) -> Finding:
    """People must have reviewed enough judgments, and agreed with enough of them."""
    n = reviewed.n if reviewed is not None else 0
    if n < rule.minimum:
        detail = f"{n} reviews, needed {rule.minimum}: failed"
        return Finding(rule="reviews", passed=False, got=n, needed=rule.minimum, detail=detail)
    agreement = (reviewed.agreement if reviewed is not None else None) or 0.0
    passed = agreement >= rule.agreement - _ROUNDING
    what = f"agreement of {n} reviews"
    return _finding("reviews", None, passed, agreement, rule.agreement, what)


def paired_interval(candidate: str | None, incumbent: str | None) -> tuple[float, float] | None:
    """95 % interval of (candidate's - incumbent's share of right pairs), on the same pairs.

    None without outcomes. Wald's interval for matched proportions with half a pair added to each
    of the four cells: Agresti and Min 2005, Statistics in Medicine 24, 729-740.
    """
    if not candidate or not incumbent or len(candidate) != len(incumbent):
        return None
    both = list(zip(candidate, incumbent, strict=True))
    gained, lost = both.count(("1", "0")) + 0.5, both.count(("0", "1")) + 0.5
    n = len(both) + 2
    difference = (gained - lost) / n
    half = _Z * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return max(-1.0, difference - half), min(1.0, difference + half)


def _accuracy(scored: Scored | None) -> float | None:
    return None if scored is None else scored.accuracy


def _unscored(rule: Rule, name: str, got: float | None) -> Finding:
    detail = (
        f"{name}: the two versions have not both been scored on it; a job of this model scores its "
        "versions and the one that holds `latest` then: failed"
    )
    return Finding(rule=rule, passed=False, set=name, got=got, needed=None, detail=detail)


def _finding(
    rule: Rule,
    name: str | None,
    passed: bool,
    got: float,
    needed: float,
    what: str,
    note: str = "",
) -> Finding:
    limit = "at most" if rule in ("position_bias", "parse_failures") else "needed"
    where = f"{name}: " if name else ""
    verdict = "passed" if passed else "failed"
    detail = f"{where}{what} {got:.4f}, {limit} {needed:.4f}{note}: {verdict}"
    return Finding(rule=rule, passed=passed, set=name, got=got, needed=needed, detail=detail)
