"""From comparisons of responses to a ranking: which pairs to judge, and what follows from them.

A tournament's strengths are those of Bradley and Terry (1952, Biometrika 39): response i beats j
with probability 1 / (1 + exp(s_j - s_i)). A tie counts as half a win of each. The fit is the
maximum of the likelihood times a normal prior on each strength (mean 0, standard deviation PRIOR),
without which a response that always wins would have no finite strength; intervals are those of a
normal approximation at the maximum (inverse of the negative Hessian).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from selftaught.contracts import Ranked, RankIn, Ranking, Ruling
from selftaught.hashing import canonical_sha256, stable_seed

ALL_PAIRS_UP_TO = 8
PER_RESPONSE = 4
PRIOR = 3.0
EQUAL = 1e-6
"""Strengths that differ by less are equal: the fit may be off by so much, a vote moves more."""
_Z = 1.959963984540054

Result = TypeVar("Result")
Pair = tuple[int, int]
Outcome = float | None
"""Of a pair (i, j): 1 if i is better, 0 if j is, 0.5 for a tie; None if it could not be read."""
_OUTCOMES: dict[str, Outcome] = {"A": 1.0, "B": 0.0, "tie": 0.5, "unparsable": None}
Compare = Callable[[int, int], Awaitable[Outcome]]


def pairs_of(count: int, comparisons: int | None, seed: str) -> list[Pair]:
    """The pairs that a tournament of `count` responses judges.

    All of them if `comparisons` allows it (default: up to 8 responses); else each response meets
    the next 1, 2, .. ones in a circle of drawn order, so that all are connected and all have the
    same number of opponents, but for the last round. At least one round is played.
    """
    every = list(combinations(range(count), 2))
    if comparisons is None:
        comparisons = len(every) if count <= ALL_PAIRS_UP_TO else PER_RESPONSE * count
    if comparisons >= len(every):
        return every
    circle = sorted(range(count), key=lambda one: stable_seed("rank", seed, str(one)))
    found: dict[Pair, None] = {}
    for distance in range(1, count):
        for place in range(count):
            one, other = circle[place], circle[(place + distance) % count]
            found.setdefault((min(one, other), max(one, other)))
            if len(found) >= max(comparisons, count):
                return list(found)
    return list(found)


async def rank(
    question: RankIn, compare: Callable[[int, int], Awaitable[Ruling]], started: float
) -> Ranking:
    """The ranking of a question's responses, by as many comparisons as it wants.

    `compare` judges two of them, by place; `started` is of time.perf_counter.
    """
    rulings: list[Ruling] = []
    outcomes: list[tuple[Pair, float]] = []

    async def play(one: int, other: int) -> Outcome:
        found = await compare(one, other)
        rulings.append(found)
        outcome = _OUTCOMES[found.verdict]
        if outcome is not None:
            outcomes.append(((one, other), outcome))
        return outcome

    count = len(question.responses)
    fit = None
    if question.method == "sort":
        groups = await merge_sort(count, play)
        values = [0.0] * count
        for place, group in enumerate(groups):
            for response in group:
                values[response] = -place
    else:
        seed = canonical_sha256(question.responses)
        pairs = pairs_of(count, question.comparisons, seed)
        await _together(play(*pair) for pair in pairs)
        outcomes.sort()  # the fit must not depend on who answered first
        fit = bradley_terry(count, outcomes)
        values = fit.strengths
    places, records = ranks(values), record(count, outcomes)
    first = rulings[0]
    return Ranking(
        ranking=[
            Ranked(
                response=index,
                rank=places[index],
                **records[index],
                strength=fit.strengths[index] if fit else None,
                ci95=fit.intervals[index] if fit else None,
            )
            for index in sorted(range(count), key=lambda one: (places[one], one))
        ],
        comparisons=len(rulings),
        unparsable=len(rulings) - len(outcomes),
        **{name: getattr(first, name) for name in ("model", "job", "template", "template_sha256")},
        prompt_tokens=sum(one.prompt_tokens for one in rulings),
        completion_tokens=sum(one.completion_tokens for one in rulings),
        seconds=time.perf_counter() - started,
    )


async def _together(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All their results; the first error ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


@dataclass(frozen=True)
class Fit:
    """By response: log-odds of beating an average one, and the 95 % interval."""

    strengths: list[float]
    intervals: list[tuple[float, float]]


def bradley_terry(count: int, outcomes: Sequence[tuple[Pair, float]]) -> Fit:
    """The strengths of `count` responses; outcomes as :data:`Outcome`, without None.

    By Newton's method on a strictly concave function; it ends when no strength moves by 1e-9.
    """
    first = np.array([pair[0] for pair, _ in outcomes], dtype=int)
    second = np.array([pair[1] for pair, _ in outcomes], dtype=int)
    won = np.array([outcome for _, outcome in outcomes], dtype=float)
    strengths = np.zeros(count)
    while True:
        chance = 1 / (1 + np.exp(strengths[second] - strengths[first]))
        gradient = -strengths / PRIOR**2
        np.add.at(gradient, first, won - chance)
        np.add.at(gradient, second, chance - won)
        weight = chance * (1 - chance)
        information = np.eye(count) / PRIOR**2
        np.add.at(information, (first, first), weight)
        np.add.at(information, (second, second), weight)
        np.add.at(information, (first, second), -weight)
        np.add.at(information, (second, first), -weight)
        step = np.linalg.solve(information, gradient)
        # A full step may overshoot where all is won; half a logit at a time always converges.
        strengths = strengths + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-9:
            break
    # Relative to the mean, which the comparisons say nothing about.
    centre = np.eye(count) - 1 / count
    spread = _Z * np.sqrt(np.diag(centre @ np.linalg.inv(information) @ centre))
    strengths = centre @ strengths
    intervals = [(float(s - h), float(s + h)) for s, h in zip(strengths, spread, strict=True)]
    return Fit([float(s) for s in strengths], intervals)


async def merge_sort(count: int, compare: Compare) -> list[list[int]]:
    """Responses from best to worst, in groups of equals; some count x log2(count) comparisons.

    Halves are sorted at the same time. An unreadable comparison counts as a tie. Groups are by
    neighbours: an equal of an equal is one.
    """

    async def sort(part: list[int]) -> list[list[int]]:
        if len(part) < 2:
            return [part]
        half = len(part) // 2
        left, right = await _together(sort(one) for one in (part[:half], part[half:]))
        merged: list[list[int]] = []
        while left and right:
            outcome = await compare(left[0][0], right[0][0])
            if outcome is None or outcome == 0.5:
                merged.append(left.pop(0) + right.pop(0))
            else:
                merged.append((left if outcome == 1 else right).pop(0))
        return merged + left + right

    return await sort(list(range(count)))


def ranks(values: Sequence[float]) -> list[int]:
    """By value, largest first, from 1; equal values share the better rank."""
    return [
        1 + sum(other > value and not math.isclose(other, value, abs_tol=EQUAL) for other in values)
        for value in values
    ]


def record(count: int, outcomes: Sequence[tuple[Pair, float]]) -> list[Counter[str]]:
    """Wins, losses and ties of each response."""
    found: list[Counter[str]] = [Counter(wins=0, losses=0, ties=0) for _ in range(count)]
    for (one, other), outcome in outcomes:
        told = {1.0: ("wins", "losses"), 0.0: ("losses", "wins"), 0.5: ("ties", "ties")}[outcome]
        found[one][told[0]] += 1
        found[other][told[1]] += 1
    return found
