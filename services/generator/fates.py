"""What became of every judgment, and of every pair: the file `fates` that curation publishes.

It is also the way into the other files: rows are sorted by the pair's id, so one is found without
reading the rest, and they say where the pair and its judgments stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from selftaught import jsonl
from selftaught.contracts import Fate, Outcome
from selftaught.judging import ORDERS, Order, Verdict, swap, tally


class Judged(Protocol):
    """What is known of a pair in one order."""

    first: jsonl.Position
    verdicts: list[Verdict]
    fates: list[Fate]
    preferences: list[tuple[int, int]]


def fate_rows(
    inputs: Mapping[tuple[str, Order], Judged], pairs: Mapping[str, jsonl.Position]
) -> Iterator[jsonl.Row]:
    """A row for each judged pair, sorted by id: `{id, outcomes, pair, orders: [{order, at,
    verdicts, fates, preferences}]}`.

    `pair` and `at` are positions [file, byte] among the files of `pair` and of `judge`, there the
    first of the order's judgments; the others follow. `verdicts` are in the letters as shown;
    verdicts and fates are by sample. `preferences` are the samples of preference pairs, [right,
    wrong]. `outcomes`: see :func:`outcomes_of`.
    """
    for pair_id in sorted({pair_id for pair_id, _ in inputs}):
        found = {o: inputs[pair_id, o] for o in ORDERS if (pair_id, o) in inputs}
        yield {
            "id": pair_id,
            "outcomes": outcomes_of(found),
            "pair": pairs[pair_id],
            "orders": [
                {
                    "order": order,
                    "at": one.first,
                    "verdicts": [verdict.value for verdict in one.verdicts],
                    "fates": one.fates,
                    "preferences": one.preferences,
                }
                for order, one in found.items()
            ],
        }


def outcomes_of(orders: Mapping[Order, Judged]) -> list[Outcome]:
    """What a pair can be looked for by.

    kept: a judgment of it is a training example, else dropped. none_right: in one of its orders no
    judgment was right. unparsable: a judgment could not be read. flipped: the majorities of the two
    orders name different responses, so the judge went by where they stood.
    """
    fates = [set(one.fates) for one in orders.values()]
    everything = set[Fate]().union(*fates)
    told: list[Outcome] = ["kept" if "kept" in everything else "dropped"]
    if any(found <= {"wrong", "tie", "unparsable"} for found in fates):
        told.append("none_right")
    if "unparsable" in everything:
        told.append("unparsable")
    said = {order: tally(one.verdicts).verdict for order, one in orders.items()}
    named = {swap(one) if order == "BA" else one for order, one in said.items()}
    if {Verdict.A, Verdict.B} <= named:
        told.append("flipped")
    return told
