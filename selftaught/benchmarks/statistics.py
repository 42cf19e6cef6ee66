"""Intervals, and tests between two versions that judged the same examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 1000
_BLOCK = 50  # rounds drawn at a time, so that memory stays flat

Array = NDArray[Any]
Sums = Mapping[str, Mapping[str, Array]]
"""stratum -> column -> sum over its units; one number for each bootstrap round."""


@dataclass(frozen=True)
class Unit:
    """What was sampled independently (with several votes on one question: the question)."""

    stratum: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(
    units: Sequence[Unit],
    figures: Callable[[Sums], Mapping[str, Array]],
    seed: int,
    rounds: int = ROUNDS,
) -> dict[str, Estimate]:
    """Every figure of the units, with its interval; {} without units.

    `figures` turns sums into figures, element by element; a column that a unit lacks counts as 0,
    and column `n` counts units. Units are drawn again within their stratum (a benchmark's subset
    sizes are fixed, not sampled). Source: Efron and Tibshirani 1993, chapter 13.
    """
    if not units:
        return {}
    columns = sorted({"n"} | {column for unit in units for column in unit.values})
    groups: defaultdict[str, list[list[float]]] = defaultdict(list)
    for unit in units:
        row = {"n": 1.0, **unit.values}
        groups[unit.stratum].append([row.get(column, 0.0) for column in columns])
    tables = {stratum: np.array(rows) for stratum, rows in sorted(groups.items())}
    once = {stratum: table.sum(axis=0, keepdims=True) for stratum, table in tables.items()}
    values = figures(_named(once, columns))
    rng = np.random.default_rng(seed)
    blocks = []
    for start in range(0, rounds, _BLOCK):
        size = min(_BLOCK, rounds - start)
        drawn = {
            stratum: rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size) @ table
            for stratum, table in tables.items()
        }
        blocks.append(figures(_named(drawn, columns)))
    estimates = {}
    for name, value in values.items():
        spread = np.concatenate([block[name] for block in blocks])
        low, high = np.percentile(spread, [2.5, 97.5])
        estimates[name] = Estimate(float(value[0]), float(low), float(high))
    return estimates


def _named(sums: Mapping[str, Array], columns: Sequence[str]) -> dict[str, dict[str, Array]]:
    return {
        stratum: {column: table[:, index] for index, column in enumerate(columns)}
        for stratum, table in sums.items()
    }


def added(arrays: Iterable[Array]) -> Array:
    """Their sum, element by element."""
    total: Array = np.sum(list(arrays), axis=0)
    return total


def ratio(part: Array, whole: Array) -> Array:
    """part / whole, element by element; 0 where there is nothing to divide by."""
    out: Array = np.zeros_like(whole, dtype=float)
    return np.divide(part, whole, out=out, where=whole != 0)


@dataclass(frozen=True)
class Paired:
    """Two versions on the same `n` examples; `difference` is the second's mean less the first's.

    `only_first`, `only_second`: examples that one got right and the other did not. `p`: exact
    McNemar, two-sided. low, high: 95 % paired bootstrap of the difference.
    """

    n: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float


def compare(first: Mapping[str, float], second: Mapping[str, float], seed: int = 0) -> Paired:
    """Compare points by example id, over the examples that have points in both (`n` of them).

    Some scripts give an example no points if there was no verdict on it. ValueError without any.
    """
    pairs = [(first[name], second[name]) for name in sorted(first.keys() & second.keys())]
    if not pairs:
        raise ValueError("there is no example that both have points for")

    units = [Unit("", {"difference": b - a}) for a, b in pairs]
    found = bootstrap(units, lambda sums: {"": ratio(sums[""]["difference"], sums[""]["n"])}, seed)
    only_first = sum(a > b for a, b in pairs)
    only_second = sum(b > a for a, b in pairs)
    return Paired(
        n=len(pairs),
        first=sum(a for a, _ in pairs) / len(pairs),
        second=sum(b for _, b in pairs) / len(pairs),
        difference=found[""].value,
        low=found[""].low,
        high=found[""].high,
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: a fair coin for every example on which the two differ.

    Source: McNemar 1947; exact form as in statsmodels' `mcnemar(exact=True)`.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail: int = sum(comb(n, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**n))
