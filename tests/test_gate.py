"""The gate's rules, on numbers worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from selftaught.contracts import Finding, GateSettings, ReviewRule
from selftaught.gate import (
    Scored,
    decide,
    labelled,
    margin,
    paired_interval,
    parse_failures,
    position_bias,
    reviews,
)


def scored(accuracy: float | None, right: str | None = None, **rates: Any) -> Scored:
    calm = {"position_bias": 0.0, "parse_failures": 0.0}
    return Scored({"strict_accuracy": accuracy, **calm, **rates}, right)


@dataclass
class Reviews:
    n: int
    agreement: float | None


def rules(findings: list[Finding]) -> list[tuple[str, str | None, bool]]:
    return [(finding.rule, finding.set, finding.passed) for finding in findings]


def test_the_first_version_has_nothing_to_beat_even_if_it_is_broken() -> None:
    broken = {"heldout": scored(0.0, position_bias=1.0, parse_failures=1.0)}
    asked = GateSettings(reviews=ReviewRule(minimum=5))
    assert rules(decide(broken, None, asked, None)) == [("first", None, True)]


@pytest.mark.parametrize(
    ("got", "theirs", "passed"),
    [(0.80, 0.75, True), (0.77, 0.75, True), (0.76, 0.75, False), (0.70, 0.75, False)],
)
def test_margin(got: float, theirs: float, passed: bool) -> None:
    finding = margin(scored(got), scored(theirs), 0.02)
    assert (finding.passed, finding.got, finding.needed) == (passed, got, theirs + 0.02)


def test_a_refusal_names_the_rule_with_its_numbers() -> None:
    findings = decide(
        {"heldout": scored(0.70), "labelled": scored(0.9)},
        {"heldout": scored(0.75), "labelled": scored(0.9)},
        GateSettings(),
        None,
    )
    assert [finding.detail for finding in findings] == [
        "heldout: strict accuracy 0.7000, needed 0.7500: failed",
        "labelled: strict accuracy 0.9000, needed 0.8800: passed",
        "heldout: |position bias| 0.0000, at most 0.9000: passed",
        "heldout: parse failures 0.0000, at most 0.5000: passed",
        "labelled: |position bias| 0.0000, at most 0.9000: passed",
        "labelled: parse failures 0.0000, at most 0.5000: passed",
    ]


def test_without_scores_of_both_the_rule_fails_and_says_what_to_do() -> None:
    only = {"heldout": scored(0.9), "labelled": scored(0.9)}
    findings = decide(only, {"labelled/ds_1": scored(0.5)}, GateSettings(), None)
    assert rules(findings)[:3] == [
        ("margin", "heldout", False),
        ("labelled", "labelled", False),
        ("labelled", "labelled/ds_1", False),
    ]
    assert findings[0].got == 0.9 and "a job of this model scores" in findings[0].detail
    assert not margin(scored(None), scored(None), 0.0).passed  # scored on nothing


def test_the_paired_interval_by_hand() -> None:
    # 10 pairs: 1 gained, 4 lost -> (1.5 - 4.5) / 12 = -0.25,
    # half = 1.96 * sqrt(6 - 9/12) / 12 = 1.96 * 2.29129 / 12 = 0.37424
    found = paired_interval("1100000111", "0111110111")
    assert found == pytest.approx((-0.62424, 0.12424), abs=1e-4)
    assert paired_interval("1", None) is None
    assert paired_interval("", "") is None
    assert paired_interval("11", "1") is None  # not the same pairs


def test_a_labelled_fall_fails_only_if_it_is_above_the_tolerance_and_beyond_chance() -> None:
    was, one_lost = "1" * 20, "0" + "1" * 19
    chance = labelled("labelled", scored(0.95, one_lost), scored(1.0, was), 0.02)
    assert chance.passed and chance.detail.endswith(", which chance can explain): passed")
    lost = "0" * 8 + "1" * 12
    refused = labelled("labelled", scored(0.6, lost), scored(1.0, was), 0.02)
    assert not refused.passed and refused.needed == 0.98
    # (0.5 - 8.5) / 22 = -0.3636, half = 1.96 * sqrt(9 - 64/22) / 22 = 0.2198
    assert "-0.4000 against the incumbent, 95 % -0.5835 to -0.1438" in refused.detail
    assert labelled("labelled", scored(0.6, lost), scored(1.0, was), 0.4).passed  # tolerated
    # Without outcomes the tolerance alone decides.
    assert not labelled("labelled", scored(0.95), scored(1.0), 0.02).passed
    assert labelled("labelled", scored(0.98), scored(1.0), 0.02).passed


@pytest.mark.parametrize(
    ("bias", "passed"), [(0.9, True), (-0.9, True), (0.91, False), (-1.0, False), (None, False)]
)
def test_position_bias(bias: float | None, passed: bool) -> None:
    finding = position_bias("heldout", {"position_bias": bias}, 0.9)
    assert (finding.passed, finding.needed) == (passed, 0.9)
    assert finding.got == (None if bias is None else abs(bias))


@pytest.mark.parametrize(("share", "passed"), [(0.5, True), (0.51, False), (None, False)])
def test_parse_failures(share: float | None, passed: bool) -> None:
    assert parse_failures("heldout", {"parse_failures": share}, 0.5).passed is passed


def test_a_limit_holds_on_every_set() -> None:
    mine = {"heldout": scored(0.9), "labelled/ds_1": scored(0.9, parse_failures=0.6)}
    failed = [f for f in decide(mine, mine, GateSettings(), None) if not f.passed]
    assert rules(failed) == [("parse_failures", "labelled/ds_1", False)]


@pytest.mark.parametrize(
    ("reviewed", "passed", "got"),
    [
        (None, False, 0),
        (Reviews(29, 1.0), False, 29),
        (Reviews(30, 0.79), False, 0.79),
        (Reviews(30, 0.8), True, 0.8),
        (Reviews(30, None), False, 0.0),
    ],
)
def test_reviews(reviewed: Reviews | None, passed: bool, got: float) -> None:
    finding = reviews(reviewed, ReviewRule(minimum=30, agreement=0.8))
    assert (finding.passed, finding.got) == (passed, got)


def test_reviews_are_a_rule_only_where_the_recipe_asks() -> None:
    same = {"heldout": scored(0.9)}
    assert "reviews" not in {f.rule for f in decide(same, same, GateSettings(), None)}
    asked = GateSettings(reviews=ReviewRule(minimum=1))
    assert rules(decide(same, same, asked, None))[-1] == ("reviews", None, False)
    assert rules(decide(same, same, asked, Reviews(1, 0.0)))[-1] == ("reviews", None, True)
