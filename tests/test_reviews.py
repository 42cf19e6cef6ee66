"""Summaries and drift from rows whose figures can be worked by hand, on a real Postgres."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable
from typing import Any

import pytest

from selftaught import reviews
from selftaught.contracts import DriftComparison
from selftaught.database import transaction
from selftaught.database.tables import Event, Job, ModelVersion, Review, ReviewItem
from selftaught.judging import Verdict

pytestmark = pytest.mark.usefixtures("database")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def add_version(number: int) -> str:
    """A version of m, and the job that made it and filled its queue."""
    name = f"ver_{number}"
    with transaction() as session:
        session.add(Job(id=f"job_{number}", state="succeeded", model="m", recipe={"name": "r"}))
        session.flush()
        session.add(
            ModelVersion(
                id=name, model="m", number=number, job_id=f"job_{number}", path="x", sha256="x",
                lineage={},
            )
        )  # fmt: skip
    return name


def add_items(
    number: int,
    items: Iterable[tuple[str, str]],
    stratum: str = "random",
    weight: float = 1.0,
    first: int = 0,
) -> None:
    """Items (model's verdict, people's letters), a minute apart; `-` is a skip, `.` only shown."""
    letters = {"A": "A", "B": "B", "t": "tie"}
    with transaction() as session:
        for place, (model, people) in enumerate(items, first):
            item = f"item_{number}_{place}"
            at = START + dt.timedelta(days=number, minutes=place)
            session.add(
                ReviewItem(
                    id=item, job_id=f"job_{number}", version_id=f"ver_{number}", position=place,
                    overlap=1, stratum=stratum, weight=weight, pair=str(place), context=[],
                    instruction="i", response_a="a", response_b="b", swapped=False, verdict=model,
                    confidence=1.0, orders_agree=True,
                )
            )  # fmt: skip
            session.flush()
            for reviewer, letter in enumerate(people):
                verdict = letters.get(letter)
                session.add(
                    Review(
                        item_id=item, reviewer=f"r{reviewer}", verdict=verdict,
                        skipped=letter == "-", held_until=at, answered_at=verdict and at,
                    )
                )  # fmt: skip


def summary(number: int) -> Any:
    with transaction() as session:
        return reviews.summary(session, f"ver_{number}")


def drift() -> Any:
    with transaction() as session:
        found = reviews.drift(session, "m")
        assert reviews.state(session, "m") == found.state
        return found


def test_a_version_without_reviews_says_so() -> None:
    add_version(0)
    found = summary(0)
    assert (found.n, found.agreement, found.ci95, found.kappa) == (0, None, None, None)
    assert (found.items, found.strata, found.drift, found.source.pairs) == (0, {}, None, 0)
    assert drift().state == "ok" and drift().versions == []


def test_figures_by_hand() -> None:
    add_version(0)
    add_items(0, [("A", "A")] * 4 + [("B", "A")] * 2 + [("B", ""), ("A", "-")], weight=10)
    hard = [("A", "B"), ("B", "B"), ("tie", "t"), ("unparsable", "A")]
    add_items(0, hard, "disagreement", 2.5, 20)
    found = summary(0)
    assert (found.version, found.items, found.answers, found.skipped) == ("m:0", 12, 10, 1)
    # Right: 4 of 6 at weight 10, and 2 of 4 at 2.5.
    assert (found.n, found.agreement) == (10, 0.6)
    assert found.ci95 == pytest.approx((0.3127, 0.8318), abs=1e-4)
    # Model A 5, B 3, tie 1, unparsable 1; people A 7, B 2, tie 1: pe = (35 + 6 + 1) / 100.
    assert found.kappa == pytest.approx((0.6 - 0.42) / 0.58)
    assert found.source.pairs == 70 and found.source.agreement == pytest.approx(45 / 70)
    assert found.source.effective_n == pytest.approx(70**2 / (6 * 100 + 4 * 6.25))
    assert (found.without_ties.n, found.without_ties.agreement) == (8, 5 / 8)
    told = {
        name: (one.items, one.n, one.agreement, one.pairs) for name, one in found.strata.items()
    }
    assert told == {"disagreement": (4, 4, 0.5, 10), "random": (8, 6, 4 / 6, 80)}
    confusion = {(one.model, one.person): one.n for one in found.confusion}
    assert confusion[("B", "A")] == 2 and confusion[("unparsable", "A")] == 1
    assert sum(confusion.values()) == 10


def test_several_reviewers_of_an_item_count_once_by_their_majority() -> None:
    add_version(0)
    add_items(0, [("A", "AAB"), ("A", "AB"), ("B", "B"), ("tie", "AB")])
    found = summary(0)
    assert (found.n, found.answers, found.reviewers) == (4, 8, 3)
    assert found.agreement == 0.75, "A and B level is a tie"
    assert found.between_reviewers.items == 3
    # Pairs that agree: 1 of 3 in the first item, none in the others; items count by raters 3, 2, 2.
    assert found.between_reviewers.agreement == pytest.approx(1 / 7)


def test_a_made_fall_between_versions_is_an_alarm() -> None:
    add_version(0)
    add_version(1)
    add_items(0, [("A", "A")] * 36 + [("A", "B")] * 4)
    add_items(1, [("A", "A")] * 18 + [("A", "B")] * 11)
    early = summary(1).drift
    assert (early.state, early.enough, early.p) == ("ok", False, None), "29 are too few"
    add_items(1, [("A", "B")] * 11, first=29)
    found = summary(1).drift
    assert (found.state, found.enough) == ("alarm", True)
    assert found.fell == pytest.approx(0.9 - 0.45) and found.p < 1e-4
    trend = drift()
    assert trend.state == "alarm" and trend.over_time is None
    assert [one.version for one in trend.versions] == ["m:0", "m:1"]
    assert summary(0).drift is None


def test_the_version_before_is_one_with_enough_reviews() -> None:
    for number in range(3):
        add_version(number)
    add_items(0, [("A", "A")] * 40)
    add_items(1, [("A", "B")] * 5)
    add_items(2, [("A", "A")] * 30)
    assert summary(2).drift.before.n == 40


def test_a_fall_over_time_is_seen_within_a_version() -> None:
    add_version(0)
    add_items(0, [("A", "B")] * 5 + [("A", "A")] * 55 + [("A", "B")] * 15 + [("A", "A")] * 14)
    found = drift()
    assert (found.state, found.over_time.after.n, found.over_time.before.n) == ("ok", 30, 30)
    assert [one.n for one in found.windows] == [30, 30, 29]
    add_items(0, [("A", "A")], first=89)
    found = drift()
    assert (found.state, found.over_time.before.n) == ("alarm", 60)
    assert found.windows[-1].agreement == pytest.approx(0.5)


def test_a_rise_and_noise_stay_quiet() -> None:
    def verdicts(share: float, n: int) -> list[reviews.Reviewed]:
        return [
            reviews.Reviewed(
                Verdict.A,
                (Verdict.A if draw.random() < share else Verdict.B,),
                "random",
                draw.choice([1.0, 3.0]),
                START,
            )
            for _ in range(n)
        ]

    def states(before: float, after: float, n: int) -> list[DriftComparison]:
        return [reviews.compare(verdicts(before, n), verdicts(after, n)) for _ in range(120)]

    draw = random.Random(7)
    assert {one.state for one in states(0.6, 0.9, 60)} == {"ok"}
    same = [one.state for one in states(0.75, 0.75, 60)]
    assert same.count("alarm") / 120 <= reviews.ALARM
    assert (same.count("alarm") + same.count("watch")) / 120 <= reviews.WATCH
    fell = [one.state for one in states(0.9, 0.55, 60)]
    assert fell.count("alarm") / 120 > 0.8


def test_turning_to_alarm_is_told_once() -> None:
    add_version(0)
    add_version(1)
    add_items(0, [("A", "A")] * 40)
    add_items(1, [("A", "B")] * 40)
    with transaction() as session:
        reviews.tell_alarm(session, "m", "ok")
        reviews.tell_alarm(session, "m", "alarm")
    with transaction() as session:
        (event,) = session.query(Event).all()
        assert (event.job_id, event.type) == ("job_1", "reviews.alarm")
        assert event.data["version"] == "m:1" and "over_time" not in event.data
        assert event.data["between_versions"]["p"] < reviews.ALARM
