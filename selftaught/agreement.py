"""How well two judges of the same pairs agree, beyond chance and with intervals: pure functions.

A table counts pairs by (what one said, what the other said). Counts may be fractions, where a pair
stands for more or fewer of the source than another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

Table = Mapping[tuple[str, str], float]

_Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with its standard error and 95 % interval (clipped to [-1, 1])."""

    value: float
    se: float
    low: float
    high: float


def agreement(table: Table) -> float | None:
    """Share of pairs on which both said the same; None without any."""
    total = sum(table.values())
    return sum(n for (one, other), n in table.items() if one == other) / total if total else None


def cohen_kappa(table: Table) -> Kappa | None:
    """Agreement beyond what the two judges' own habits give by chance: (po - pe) / (1 - pe).

    None where it is not defined: no pairs, or both always say the same one thing (pe = 1).
    Source: Cohen 1960, Educ. Psychol. Meas. 20; standard error for an interval: Fleiss, Cohen and
    Everitt 1969, Psychol. Bull. 72, formula 13 (the one of statsmodels' `cohens_kappa`). It holds
    for large samples; from some 30 pairs on it is a fair guide.
    """
    n = sum(table.values())
    if not n:
        return None
    share = {cell: count / n for cell, count in table.items() if count}
    rows, columns = Counter[str](), Counter[str]()
    for (one, other), p in share.items():
        rows[one] += p  # type: ignore[assignment]  # Counter adds fractions as well
        columns[other] += p  # type: ignore[assignment]
    names = sorted(rows.keys() | columns.keys())
    observed = sum(share.get((name, name), 0.0) for name in names)
    expected = sum(rows[name] * columns[name] for name in names)
    if expected >= 1 - 1e-12:
        return None
    kappa = (observed - expected) / (1 - expected)
    same = sum(
        share.get((name, name), 0.0) * (1 - (rows[name] + columns[name]) * (1 - kappa)) ** 2
        for name in names
    )
    differ = sum(
        share.get((one, other), 0.0) * (columns[one] + rows[other]) ** 2
        for one, other in permutations(names, 2)
    )
    spread = same + (1 - kappa) ** 2 * differ - (kappa - expected * (1 - kappa)) ** 2
    se = math.sqrt(max(0.0, spread) / n) / (1 - expected)
    return Kappa(kappa, se, max(-1.0, kappa - _Z * se), min(1.0, kappa + _Z * se))


def rater_table(items: Iterable[Sequence[str]]) -> dict[tuple[str, str], float]:
    """The table of all ordered pairs of raters of the same item; items with one rater are left out.

    An item with k raters counts k in all. Its :func:`agreement` is the mean share of rater pairs
    that agree, and its :func:`cohen_kappa` is, for equally many raters on each item, Fleiss' kappa
    (Fleiss 1971, Psychol. Bull. 76); the standard error there does not hold.
    """
    table: dict[tuple[str, str], float] = {}
    for verdicts in items:
        for one, other in permutations(verdicts, 2):
            table[one, other] = table.get((one, other), 0.0) + 1 / (len(verdicts) - 1)
    return table


def effective_n(weights: Sequence[float]) -> float:
    """How many equally weighted pairs tell as much as these: (sum w)^2 / sum w^2.

    Source: Kish 1965, Survey Sampling, section 11.7. It takes nothing for the gain from strata, so
    intervals made from it are rather too wide.
    """
    squares = sum(w * w for w in weights)
    return sum(weights) ** 2 / squares if squares else 0.0


def fisher_fell(before: tuple[int, int], after: tuple[int, int]) -> float:
    """One-sided p that a share fell: (right, n) before and after; 1.0 where nothing can be said.

    Fisher's exact test: given all margins, the chance of so few right ones after, or fewer.
    Source: Fisher 1935; as scipy's `fisher_exact(alternative="greater")` on the rows before, after.
    """
    (right_before, n_before), (right_after, n_after) = before, after
    right, n = right_before + right_after, n_before + n_after
    if not n_before or not n_after:
        return 1.0
    ways = sum(
        math.comb(n_after, k) * math.comb(n_before, right - k)
        for k in range(max(0, right - n_before), right_after + 1)
    )
    return ways / math.comb(n, right)
