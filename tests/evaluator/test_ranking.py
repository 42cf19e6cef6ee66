"""Which pairs are judged, and what follows from their outcomes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from selftaught.contracts import RankIn, Ranking, Ruling
from services.evaluator.ranking import (
    ALL_PAIRS_UP_TO,
    PER_RESPONSE,
    PRIOR,
    Outcome,
    Pair,
    bradley_terry,
    merge_sort,
    pairs_of,
    rank,
    ranks,
)

Outcomes = list[tuple[Pair, float]]


@st.composite
def tournaments(draw: st.DrawFn) -> tuple[int, Outcomes]:
    """Responses and some outcomes between them, in no order."""
    count = draw(st.integers(2, 9))
    pair = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    different = pair.filter(lambda found: found[0] != found[1])
    outcome = st.sampled_from([0.0, 0.5, 1.0])
    return count, draw(st.lists(st.tuples(different, outcome), max_size=60))


def simulated(strengths: np.ndarray, rounds: int, seed: int) -> Outcomes:
    """Every pair so often, by the model that is to be fitted."""
    rng = np.random.default_rng(seed)
    pairs = pairs_of(len(strengths), 10_000, "") * rounds
    return [
        ((i, j), float(rng.random() < 1 / (1 + math.exp(strengths[j] - strengths[i]))))
        for i, j in pairs
    ]


def by_scipy(count: int, outcomes: Outcomes) -> np.ndarray:
    """The maximum of the same posterior, by another program and another way."""

    def minus_log_posterior(strengths: np.ndarray) -> float:
        total = float((strengths**2).sum()) / (2 * PRIOR**2)
        for (i, j), won in outcomes:
            difference = strengths[i] - strengths[j]
            total += won * np.logaddexp(0, -difference) + (1 - won) * np.logaddexp(0, difference)
        return total

    found = minimize(minus_log_posterior, np.zeros(count), method="BFGS", tol=1e-10).x
    return np.asarray(found - found.mean())


def test_known_strengths_are_found() -> None:
    true = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -2.5])
    fit = bradley_terry(6, simulated(true, rounds=2000, seed=1))
    assert fit.strengths == pytest.approx(true, abs=0.12)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Of 2,400 intervals 95 %, within what chance and the prior allow."""
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        true = rng.normal(0, 1, 8)
        true -= true.mean()
        fit = bradley_terry(8, simulated(true, rounds=4, seed=seed))
        covered += sum(
            low <= one <= high for one, (low, high) in zip(true, fit.intervals, strict=True)
        )
    assert 0.935 <= covered / 2400 <= 0.97


@settings(max_examples=40)
@given(tournaments())
def test_the_fit_is_the_one_that_another_program_finds(found: tuple[int, Outcomes]) -> None:
    count, outcomes = found
    assert bradley_terry(count, outcomes).strengths == pytest.approx(
        by_scipy(count, outcomes), abs=2e-3
    )


@settings(max_examples=40)
@given(tournaments(), st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(found: tuple[int, Outcomes], random: object) -> None:
    count, outcomes = found
    fit = bradley_terry(count, outcomes)
    shuffled = list(outcomes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    turned = [((j, i), 1 - won) for (i, j), won in shuffled]
    for other in (shuffled, turned):
        assert bradley_terry(count, other).strengths == pytest.approx(fit.strengths, abs=1e-6)
    assert math.isclose(sum(fit.strengths), 0, abs_tol=1e-6)
    for strength, (low, high) in zip(fit.strengths, fit.intervals, strict=True):
        assert low < strength < high


def test_outcomes_that_say_all_or_nothing() -> None:
    won = [((i, j), 1.0) for i, j in pairs_of(64, 10_000, "")]
    fit = bradley_terry(64, won)
    assert all(math.isfinite(one) for one in fit.strengths)
    assert ranks(fit.strengths) == list(range(1, 65))
    assert bradley_terry(3, []).strengths == [0, 0, 0]
    ties = bradley_terry(3, [(pair, 0.5) for pair in ((0, 1), (1, 2), (0, 2))])
    assert ties.strengths == [0, 0, 0] and ranks(ties.strengths) == [1, 1, 1]
    assert ties.intervals[0][1] < bradley_terry(3, []).intervals[0][1]
    once = bradley_terry(2, [((0, 1), 1.0)] * 1000)  # the prior holds it
    assert 3 < once.strengths[0] < 20


def test_equal_ones_in_the_middle_share_a_rank() -> None:
    """Their strengths are about 0, where nothing is close to anything relatively."""
    for count in range(4, 12):
        best, worst = 0, count - 1
        equal = range(1, count - 1)
        outcomes: Outcomes = [((best, one), 1.0) for one in (*equal, worst)]
        outcomes += [((one, worst), 1.0) for one in equal]
        outcomes += [((i, j), 0.5) for i in equal for j in equal if i < j]
        found = ranks(bradley_terry(count, outcomes).strengths)
        assert found == [1, *[2] * len(equal), count]


@given(st.integers(2, 64), st.none() | st.integers(1, 2100), st.text(max_size=5))
def test_the_pairs_of_a_tournament(count: int, comparisons: int | None, seed: str) -> None:
    pairs = pairs_of(count, comparisons, seed)
    every = count * (count - 1) // 2
    if comparisons is None:
        comparisons = every if count <= ALL_PAIRS_UP_TO else PER_RESPONSE * count
    assert len(pairs) == len(set(pairs)) == min(every, max(comparisons, count))
    assert all(0 <= i < j < count for i, j in pairs)
    met = Counter(one for pair in pairs for one in pair)
    # A last round that is not whole gives some of them up to two opponents more.
    assert max(met.values()) - min(met[one] for one in range(count)) <= 2
    if len(pairs) % count == 0 and len(pairs) < every:
        assert set(met.values()) == {2 * len(pairs) // count}
    groups = {one: {one} for one in range(count)}
    for i, j in pairs:
        if groups[i] is not groups[j]:
            groups[i] |= groups[j]
            for one in groups[j]:
                groups[one] = groups[i]
    assert len(groups[0]) == count
    assert pairs == pairs_of(count, comparisons, seed)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=64))
def test_merge_sort(worth: list[int]) -> None:
    """By a judge that is right: sorted, equals together, no more comparisons than it may have."""
    asked: list[Pair] = []

    async def compare(one: int, other: int) -> Outcome:
        asked.append((one, other))
        return 0.5 + 0.5 * ((worth[one] > worth[other]) - (worth[one] < worth[other]))

    groups = asyncio.run(merge_sort(len(worth), compare))
    assert sorted(one for group in groups for one in group) == list(range(len(worth)))
    values = [{worth[one] for one in group} for group in groups]
    assert all(len(found) == 1 for found in values)
    assert [max(found) for found in values] == sorted(set(worth), reverse=True)
    count = len(worth)
    levels = math.ceil(math.log2(count))
    assert len(asked) <= count * levels - 2**levels + 1
    assert len(set(asked)) == len(asked)


def ranked(question: RankIn, verdicts: dict[Pair, str], default: str = "unparsable") -> Ranking:
    async def compare(one: int, other: int) -> Ruling:
        return Ruling.model_construct(
            verdict=verdicts.get((one, other), default), model="m:0", job=None, template="t",
            template_sha256="s", prompt_tokens=2, completion_tokens=1,
        )  # fmt: skip

    return asyncio.run(rank(question, compare, time.perf_counter()))


@pytest.mark.parametrize("method", ["tournament", "sort"])
def test_a_ranking(method: str) -> None:
    question = RankIn(instruction="i", responses=["c", "a", "b"], method=method)
    found = ranked(question, {(0, 1): "B", (0, 2): "B", (1, 2): "A"})
    assert next((one.response, one.rank, one.wins) for one in found.ranking) == (1, 1, 2)
    assert [one.response for one in found.ranking] == [1, 2, 0]
    assert (found.unparsable, found.prompt_tokens) == (0, 2 * found.comparisons)
    assert (found.ranking[0].strength is None) == (method == "sort")


@pytest.mark.parametrize(("default", "ties", "unparsable"), [("tie", 2, 0), ("unparsable", 0, 3)])
def test_nothing_to_choose_from(default: str, ties: int, unparsable: int) -> None:
    question = RankIn(instruction="i", responses=["a", "b", "c"])
    found = ranked(question, {}, default)
    assert [(one.rank, one.strength, one.ties) for one in found.ranking] == [(1, 0, ties)] * 3
    assert (found.comparisons, found.unparsable) == (3, unparsable)
    by_sorting = ranked(question.model_copy(update={"method": "sort"}), {}, default)
    assert [one.rank for one in by_sorting.ranking] == [1, 1, 1]
    assert by_sorting.ranking[0].ci95 is None


def test_one_that_cannot_be_compared_is_in_the_middle_and_unsure() -> None:
    question = RankIn(instruction="i", responses=["good", "odd", "bad"])
    found = ranked(question, {(0, 2): "A"})
    assert [one.response for one in found.ranking] == [0, 1, 2]
    widths = {one.response: one.ci95[1] - one.ci95[0] for one in found.ranking if one.ci95}
    assert widths[1] > widths[0] == pytest.approx(widths[2])
    assert found.unparsable == 2


def test_a_comparison_that_fails_fails_the_ranking_with_its_own_error() -> None:
    async def compare(one: int, other: int) -> Ruling:
        await asyncio.sleep(0 if one else 60)
        raise LookupError(f"{one}-{other}")

    began = time.monotonic()
    with pytest.raises(LookupError, match="1-2"):
        asyncio.run(rank(RankIn(instruction="i", responses=["a", "b", "c"]), compare, began))
