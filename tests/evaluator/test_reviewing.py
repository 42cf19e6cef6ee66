"""How a review queue is sampled: reproducible, spread over strata, and without bias."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selftaught.contracts import ReviewShares
from services.evaluator.reviewing import allocate, drawn, read_pairs, sample, stratum

SHARES = ReviewShares(disagreement=0.4, low_confidence=0.3, random=0.3)


def row(verdict: str, confidence: float, against: str | None) -> dict[str, Any]:
    return {"verdict": verdict, "confidence": confidence, "against_verdict": against}


def test_a_pair_belongs_to_the_first_stratum_that_has_a_share() -> None:
    both = row("tie", 0.0, "A")
    assert stratum(both, SHARES) == "disagreement"
    assert stratum(row("tie", 0.0, "tie"), SHARES) == "low_confidence"
    assert stratum(row("A", 0.74, None), SHARES) == "low_confidence"
    assert stratum(row("unparsable", 1.0, None), SHARES) == "low_confidence"
    assert stratum(row("A", 0.75, "A"), SHARES) == "random"
    assert stratum(both, ReviewShares(disagreement=0)) == "low_confidence"
    assert stratum(both, ReviewShares(disagreement=0, low_confidence=0)) == "random"


@pytest.mark.parametrize(
    ("there", "size", "given"),
    [
        ((100, 100, 100), 50, (20, 15, 15)),
        ((5, 100, 100), 50, (5, 23, 22)),
        ((1, 1, 200), 50, (1, 1, 48)),
        ((3, 3, 3), 50, (3, 3, 3)),
        ((1000, 2, 1000), 10, (5, 2, 3)),
    ],
)
def test_places_are_shared_out(there: Any, size: int, given: Any) -> None:
    names = ("disagreement", "low_confidence", "random")
    found = allocate(dict(zip(names, there, strict=True)), SHARES.model_dump(), size)
    assert tuple(found[name] for name in names) == given


def test_every_stratum_that_is_there_gives_some() -> None:
    shares = {"disagreement": 1.0, "low_confidence": 0.001, "random": 0.001}
    found = allocate({"disagreement": 99, "low_confidence": 9, "random": 1}, shares, 10)
    assert found == {"disagreement": 7, "low_confidence": 2, "random": 1}


def test_what_is_judged_is_drawn_by_the_seed() -> None:
    assert drawn(1000, 40, 1) == drawn(1000, 40, 1) != drawn(1000, 40, 2)
    assert drawn(30, 40, 1) == list(range(30))
    assert len(set(drawn(1000, 40, 1))) == 40
    assert max(drawn(10**9, 4000, 1)) > 10**8, "drawing costs nothing per row"


def test_pairs_are_read_at_their_places(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for at, path in enumerate(paths):
        rows = (
            f'{{"id": "{at}{n}", "instruction": "i", "chosen": "c", "rejected": "r"}}\n'
            for n in range(3)
        )
        path.write_text("".join(rows))
    read = [one["id"] for one in read_pairs(paths, False, [0, 4])]
    assert read == ["00", "11"]
    read = [one["id"] for one in read_pairs(paths, True, [0, 1, 2])]
    assert read == ["01", "10", "12"], "every second row over all files"
    assert list(read_pairs(paths, False, [])) == []
    paths[1].write_text('{"id": "x", "instruction": "i", "response_a": "a", "response_b": "b"}')
    (pair,) = read_pairs(paths, False, [3])
    assert pair == {
        "id": "x", "context": [], "instruction": "i", "response_a": "a", "response_b": "b",
    }  # fmt: skip


def world(draw: random.Random) -> list[tuple[str, bool]]:
    """A source of 400 pairs: each with its stratum, and whether a person would agree."""
    right = {"disagreement": 0.3, "low_confidence": 0.5, "random": 0.9}
    kinds = ["disagreement"] * 60 + ["low_confidence"] * 20 + ["random"] * 320
    return [(kind, draw.random() < right[kind]) for kind in kinds]


def test_weighted_agreement_is_unbiased_and_the_plain_one_is_not() -> None:
    source = world(random.Random(0))
    truth = sum(agrees for _, agrees in source) / len(source)
    weighted, plain = [], []
    for seed in range(300):
        pool = [(place, source[place][0]) for place in drawn(len(source), 120, seed)]
        items = sample(pool, SHARES, 30, len(source), seed)
        assert sum(item.weight for item in items) == pytest.approx(len(source))
        right = [source[item.key][1] for item in items]
        total = sum(item.weight for item, agrees in zip(items, right, strict=True) if agrees)
        weighted.append(total / len(source))
        plain.append(sum(right) / len(right))
    mean = sum(weighted) / 300
    error = (sum((one - mean) ** 2 for one in weighted) / 300 / 300) ** 0.5
    assert abs(mean - truth) < 3 * error, (mean, truth, error)
    assert sum(plain) / 300 < truth - 0.1, "hard pairs are there more often than in the source"


def test_the_first_items_are_a_fair_part_of_all() -> None:
    first: Counter[str] = Counter()
    for seed in range(200):
        pool = [(n, "disagreement" if n < 20 else "random") for n in range(120)]
        items = sample(pool, ReviewShares(), 30, 120, seed)
        first.update(item.stratum for item in items[:5])
        assert [items, items] == [sample(pool, ReviewShares(), 30, 120, seed)] * 2
        swapped = sum(item.swapped for item in items)
        assert abs(swapped - 15) <= 1
    expected = 5 * 200 * 17 / 30
    assert first["disagreement"] == pytest.approx(expected, rel=0.1)
