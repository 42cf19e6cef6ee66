"""Fills a review queue: what two versions say of a random part of the source, and a sample of that.

Double sampling for stratification (Neyman 1938, JASA 33; Cochran 1977, section 12.2): which stratum
a pair belongs to is known only once it is judged, so a plain random sample of the source is judged,
and the items are drawn from its strata. An item's weight is the number of pairs of the source that
it stands for: 1 / (chance to be judged x chance to be drawn within its stratum). Every stratum that
has pairs gets items, so weighted figures are unbiased for the source. Pure functions.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from selftaught import jsonl
from selftaught.contracts import Asked, ReviewShares, SamplingSettings
from selftaught.hashing import stable_seed
from selftaught.inference import Engine, Request
from selftaught.judging import ORDERS, Judged, JudgeTemplate, Verdict, aggregate, parse_verdict
from services.evaluator.ruling import instruction_of

LOW = 0.75
"""A verdict with a smaller share of the votes is of low confidence; so is none at all."""
FEWEST = 2
"""Items of every stratum that has so many pairs; one alone says nothing about its spread."""

Stratified = Sequence[tuple[Any, str]]
"""Keys of judged pairs, each with its stratum."""


def drawn(rows: int, size: int, seed: int) -> list[int]:
    """Places of the pairs to judge among `rows`, in order: all, or `size` drawn by the seed."""
    draw = random.Random(stable_seed(seed, "survey"))
    return sorted(draw.sample(range(rows), min(rows, size)))


def read_pairs(paths: Iterable[Path], second: bool, places: Sequence[int]) -> Iterator[jsonl.Row]:
    """The pairs at these places, in order: {id, context, instruction, response_a, response_b}.

    Labelled rows become pairs with `chosen` as A; what is shown as A is drawn later.
    """
    rows = (row for path in paths for row in jsonl.read(path))
    wanted = set(places)
    for place, row in enumerate(islice(rows, 1, None, 2) if second else rows):
        if place in wanted:
            yield {
                "id": str(row["id"]),
                "context": row.get("context") or [],
                "instruction": row["instruction"],
                "response_a": row["response_a"] if "response_a" in row else row["chosen"],
                "response_b": row["response_b"] if "response_b" in row else row["rejected"],
            }
            if len(wanted) == 1:
                return
            wanted.remove(place)


def logged_pair(name: str, texts: Mapping[str, Any]) -> jsonl.Row:
    """The pair of a logged question, in the shape of :func:`read_pairs`.

    Its reference answer and rubric follow the instruction, as the judge saw them.
    """
    *context, last = texts.get("messages") or [{"content": texts.get("instruction")}]
    question = Asked.model_construct(
        instruction=last["content"],
        reference=texts.get("reference"),
        rubric=texts.get("rubric"),
    )
    return {
        "id": name,
        "context": context,
        "instruction": instruction_of(question),
        "response_a": texts["response_a"],
        "response_b": texts["response_b"],
    }


def judge(
    pairs: Sequence[jsonl.Row],
    engine: Engine,
    template: JudgeTemplate,
    sampling: SamplingSettings,
    votes: int,
    seed: int,
    key: bytes,
) -> tuple[list[Judged], int]:
    """What a version says of pairs, asked in both orders, and the tokens that it wrote.

    A prompt that the model cannot take has no verdict. Random numbers follow from (seed, pair).
    `key`: of the fences, as for /judge.
    """
    requests = [
        Request(
            template.show(
                {**pair, "chosen": pair["response_a"], "rejected": pair["response_b"]},
                order,
                key,
            ),
            stable_seed(seed, "review", pair["id"], order),
            n=votes,
        )
        for pair in pairs
        for order in ORDERS
    ]
    answers = engine.generate(requests, sampling)
    said = [[parse_verdict(one.text, template, one.finished) for one in each] for each in answers]
    judged = [aggregate(said[2 * at], said[2 * at + 1]) for at in range(len(pairs))]
    return judged, sum(one.completion_tokens for each in answers for one in each)


def stratum(row: Mapping[str, Any], shares: ReviewShares) -> str:
    """Which stratum a judged pair belongs to; one without a share falls to the next."""
    against = row["against_verdict"]
    if shares.disagreement and against is not None and against != row["verdict"]:
        return "disagreement"
    unsure = row["confidence"] < LOW or row["verdict"] == Verdict.UNPARSABLE
    if shares.low_confidence and unsure:
        return "low_confidence"
    return "random"


def allocate(there: Mapping[str, int], shares: Mapping[str, float], size: int) -> dict[str, int]:
    """How many items each stratum gives, of the pairs that are there.

    Each next item is taken where least has been taken for the share (Sainte-Lague); FEWEST of each
    stratum come first. What a stratum lacks, the others give.
    """
    taken = dict.fromkeys(there, 0)
    for _ in range(min(size, sum(there.values()))):
        left = [name for name in there if taken[name] < there[name]]
        behind = min(left, key=lambda n: (taken[n] >= FEWEST, (taken[n] + 0.5) / shares[n], n))
        taken[behind] += 1
    return taken


@dataclass(frozen=True)
class Drawn:
    """An item of the queue. `swapped`: response B of the pair is shown as A."""

    key: Any
    stratum: str
    weight: float
    swapped: bool


def sample(
    judged: Stratified, shares: ReviewShares, size: int, rows: int, seed: int
) -> list[Drawn]:
    """Items in the order in which they are given out, from judged pairs of a source of `rows`.

    The order is random over all strata, so that those reviewed first are a fair part of all. Within
    a stratum every second item is swapped.
    """
    members: dict[str, list[Any]] = {}
    for key, name in judged:
        members.setdefault(name, []).append(key)
    counts = allocate({n: len(of) for n, of in members.items()}, shares.model_dump(), size)
    draw = random.Random(stable_seed(seed, "sample"))
    items = []
    for name in sorted(members):
        coin = draw.randrange(2)
        weight = rows / len(judged) * len(members[name]) / counts[name]
        for number, key in enumerate(draw.sample(members[name], counts[name])):
            items.append(Drawn(key, name, weight, swapped=bool((number + coin) % 2)))
    draw.shuffle(items)
    return items
