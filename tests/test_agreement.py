"""Agreement beyond chance, by numbers that stand in textbooks or can be worked by hand."""

from __future__ import annotations

import random
from math import comb

import pytest

from selftaught.agreement import agreement, cohen_kappa, effective_n, fisher_fell, rater_table


def test_kappa_and_its_error_are_those_of_fleiss() -> None:
    # Fleiss, Levin and Paik 2003, Statistical Methods for Rates and Proportions, table 18.1:
    # 100 subjects, psychotic, neurotic, organic; kappa .676, standard error .088 (.0877).
    rows = {"p": (75, 1, 4), "n": (5, 4, 1), "o": (0, 0, 10)}
    table = {
        (one, other): n for one, row in rows.items() for other, n in zip("pno", row, strict=True)
    }
    kappa = cohen_kappa(table)
    assert kappa is not None and agreement(table) == pytest.approx(0.89)
    assert kappa.value == pytest.approx(0.23 / 0.34)
    assert kappa.se == pytest.approx(0.0877, abs=5e-5)
    assert kappa.low == pytest.approx(kappa.value - 1.96 * kappa.se, abs=1e-4)
    assert kappa.high == pytest.approx(kappa.value + 1.96 * kappa.se, abs=1e-4)


def test_kappa_of_a_two_by_two_table() -> None:
    # po = 35/50 = 0.7; pe = 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    kappa = cohen_kappa({("A", "A"): 20, ("A", "B"): 5, ("B", "A"): 10, ("B", "B"): 15})
    assert kappa is not None and kappa.value == pytest.approx(0.4)
    # rows .5 .5, columns .6 .4; 1 - kappa = .6
    same = 0.4 * (1 - (0.5 + 0.6) * 0.6) ** 2 + 0.3 * (1 - (0.5 + 0.4) * 0.6) ** 2
    differ = 0.36 * (0.1 * (0.6 + 0.5) ** 2 + 0.2 * (0.4 + 0.5) ** 2)
    assert kappa.se == pytest.approx(((same + differ - (0.4 - 0.5 * 0.6) ** 2) / 50) ** 0.5 / 0.5)


def test_kappa_at_its_ends() -> None:
    perfect = cohen_kappa({("A", "A"): 5, ("B", "B"): 5})
    assert perfect is not None
    assert (perfect.value, perfect.se, perfect.low, perfect.high) == (1, 0, 1, 1)
    opposite = cohen_kappa({("A", "B"): 5, ("B", "A"): 5})
    assert opposite is not None and opposite.value == -1 and opposite.low == -1
    assert cohen_kappa({}) is None and agreement({}) is None
    assert cohen_kappa({("A", "A"): 9}) is None, "there is nothing beyond chance"
    none_same = cohen_kappa({("unparsable", "A"): 4, ("A", "tie"): 2})
    assert none_same is not None and none_same.value < 0


def test_the_error_of_kappa_is_how_much_it_varies() -> None:
    draw = random.Random(1)
    cells = {("A", "A"): 0.5, ("A", "B"): 0.1, ("B", "A"): 0.15, ("B", "B"): 0.25}
    values, errors = [], []
    for _ in range(400):
        table = dict.fromkeys(cells, 0)
        for cell in draw.choices(list(cells), list(cells.values()), k=200):
            table[cell] += 1
        found = cohen_kappa(table)
        assert found is not None
        values.append(found.value)
        errors.append(found.se)
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    assert spread == pytest.approx(sum(errors) / len(errors), rel=0.1)


def test_raters_of_the_same_item_are_compared_in_pairs() -> None:
    # Item 1: 3 pairs, 1 agrees; item 2: all agree; item 3 has one rater.
    table = rater_table([("A", "A", "B"), ("B", "B", "B"), ("A",)])
    assert agreement(table) == pytest.approx((1 / 3 + 1) / 2)
    # Fleiss: p_A = 2/6, p_B = 4/6, pe = 20/36, kappa = (24/36 - 20/36) / (16/36)
    kappa = cohen_kappa(table)
    assert kappa is not None and kappa.value == pytest.approx(0.25)


def test_the_effective_number() -> None:
    assert effective_n([3.0] * 7) == pytest.approx(7)
    assert effective_n([1, 1, 2]) == pytest.approx(16 / 6)
    assert effective_n([]) == 0


def test_fisher_is_the_chance_of_so_few_right_ones_after() -> None:
    # Fisher's lady tasting tea: 3 of 4 before, 1 of 4 after: (16 + 1) / 70.
    assert fisher_fell((3, 4), (1, 4)) == pytest.approx(17 / 70)
    assert fisher_fell((4, 4), (0, 4)) == pytest.approx(1 / comb(8, 4))
    assert fisher_fell((0, 4), (4, 4)) == pytest.approx(1.0)
    assert fisher_fell((5, 10), (50, 100)) > 0.5
    assert fisher_fell((0, 0), (3, 4)) == fisher_fell((3, 4), (0, 0)) == 1.0
