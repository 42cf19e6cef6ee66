"""Intervals and paired tests, against values worked out elsewhere or by hand."""

from __future__ import annotations

import pytest

from selftaught.benchmarks.statistics import Unit, bootstrap, compare, mcnemar, ratio


def share(values: list[float], seed: int = 0) -> tuple[float, float, float]:
    units = [Unit("", {"right": value}) for value in values]
    found = bootstrap(units, lambda sums: {"": ratio(sums[""]["right"], sums[""]["n"])}, seed)[""]
    return found.value, found.low, found.high


def test_the_interval_of_a_share_is_near_the_normal_one() -> None:
    value, low, high = share([1.0] * 600 + [0.0] * 400)
    # 0.6 +- 1.96 * sqrt(0.6 * 0.4 / 1000) = 0.6 +- 0.0304.
    assert value == 0.6
    assert abs(low - 0.5696) < 0.004 and abs(high - 0.6304) < 0.004


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    values = [number / 97 for number in range(97)]
    assert share(values, 1) == share(values, 1) != share(values, 2)


def test_strata_keep_their_size() -> None:
    units = [Unit("a", {"x": 1.0})] * 5 + [Unit("b", {"x": 0.0})] * 5
    found = bootstrap(units, lambda sums: {"n": sums["a"]["n"], "x": sums["a"]["x"]}, 0)
    assert (found["n"].low, found["n"].high) == (5, 5)
    assert (found["x"].low, found["x"].high) == (5, 5)


def test_no_units_no_figures() -> None:
    assert bootstrap([], lambda sums: {}, 0) == {}


def test_mcnemar() -> None:
    # Differences 0 to 5: 2 * (1/2)^5 = 0.0625; 1 to 9: 2 * (1 + 10) / 1024; level: 1.
    assert mcnemar(0, 5) == 0.0625
    assert mcnemar(9, 1) == 22 / 1024
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_two_versions_on_the_same_examples() -> None:
    first = {str(n): float(n < 50) for n in range(100)}
    second = {str(n): float(n < 70) for n in range(100)}
    found = compare(first, second)
    assert (found.n, found.first, found.second) == (100, 0.5, 0.7)
    assert round(found.difference, 10) == 0.2
    assert (found.only_first, found.only_second) == (0, 20)
    assert found.p == 2 / 2**20
    assert 0.1 < found.low < 0.2 < found.high < 0.3


def test_only_examples_that_both_have_points_for_are_compared() -> None:
    found = compare({"1": 1.0, "2": 0.0, "4": 1.0}, {"1": 0.0, "2": 0.0, "3": 1.0})
    assert (found.n, found.first, found.second, found.only_first) == (2, 0.5, 0.0, 1)
    for first, second in (({"1": 1.0}, {"2": 1.0}), ({}, {})):
        with pytest.raises(ValueError, match="no example"):
            compare(first, second)
