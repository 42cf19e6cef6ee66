"""Verdicts: strict reading, letters that survive swapping, parse failures apart from ties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.judging import (
    Verdict,
    aggregate,
    combine,
    load_judge_template,
    parse_verdict,
    settle,
    swap,
    tally,
)

A, B, TIE, BAD = Verdict.A, Verdict.B, Verdict.TIE, Verdict.UNPARSABLE
TEMPLATE = load_judge_template("mt-bench")
verdicts = st.sampled_from(list(Verdict))
votes = st.lists(verdicts, min_size=1, max_size=12)
# Texts rich in marks, halves of marks and line ends.
texts = st.lists(
    st.sampled_from(["[[A]]", "[[B]]", "[[C]]", "[[", "]]", "A", "\n", " ", "good", "."]),
    max_size=8,
).map("".join)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A is right.\n[[A]]", A),
        ("because [[B]]", B),
        ("same\n\n[[C]]\n \n", TIE),
        ("[[A]] [[A]]", A),
        ("[[A]]\nI am sure.", BAD),
        ("[[A]] or\n[[B]]", BAD),
        ("[[B]] no, [[A]]", BAD),
        ("A is better", BAD),
        ("[A]", BAD),
        ("[[a]]", BAD),
        ("", BAD),
    ],
)
def test_verdict_is_read_strictly(text: str, verdict: Verdict) -> None:
    assert parse_verdict(text, TEMPLATE) is verdict


def test_a_text_that_was_cut_off_has_no_verdict() -> None:
    assert parse_verdict("because [[B]]", TEMPLATE, finished=False) is BAD


def test_without_a_tie_mark_there_is_no_tie() -> None:
    assert parse_verdict("[[C]]", load_judge_template("criteria")) is BAD


@given(texts)
def test_two_marks_or_none_never_parse(text: str) -> None:
    marks = {mark for mark in ("[[A]]", "[[B]]", "[[C]]") if mark in text}
    parsed = parse_verdict(text, TEMPLATE)
    if len(marks) != 1:
        assert parsed is BAD
    elif text.strip().split("\n")[-1].strip() in marks:
        assert parsed is {"[[A]]": A, "[[B]]": B, "[[C]]": TIE}[marks.pop()]


@given(texts)
def test_exchanging_the_marks_swaps_the_verdict(text: str) -> None:
    other = text.replace("[[A]]", "#").replace("[[B]]", "[[A]]").replace("#", "[[B]]")
    assert parse_verdict(other, TEMPLATE) is swap(parse_verdict(text, TEMPLATE))


@pytest.mark.parametrize(
    ("ab", "ba", "verdict", "agree"),
    [
        (A, B, A, True),
        (B, A, B, True),
        (TIE, TIE, TIE, True),
        (A, A, TIE, False),
        (B, B, TIE, False),
        (A, TIE, TIE, False),
        (TIE, A, TIE, False),
        (A, BAD, BAD, False),
        (BAD, BAD, BAD, False),
        (TIE, BAD, BAD, False),
    ],
)
def test_both_orders(ab: Verdict, ba: Verdict, verdict: Verdict, agree: bool) -> None:
    both = combine(ab, ba)
    assert (both.verdict, both.agree) == (verdict, agree)


@given(verdicts, verdicts)
def test_naming_the_responses_the_other_way_round_swaps_the_result(
    ab: Verdict, ba: Verdict
) -> None:
    assert combine(ba, ab).verdict is swap(combine(ab, ba).verdict)
    assert combine(ba, ab).agree == combine(ab, ba).agree


def test_majority_counts_parse_failures_in_the_share_only() -> None:
    counted = tally([A, A, B, BAD, BAD, BAD])
    assert (counted.verdict, counted.share) == (A, 2 / 6)
    assert counted.votes == {A: 2, B: 1, BAD: 3}


def test_a_level_vote_is_a_tie_and_no_parsed_vote_is_none() -> None:
    assert (tally([A, B]).verdict, tally([A, B]).share) == (TIE, 0.0)
    assert (tally([BAD, BAD]).verdict, tally([BAD, BAD]).share) == (BAD, 1.0)
    with pytest.raises(ValueError, match="no votes"):
        tally([])


@given(votes, st.randoms(use_true_random=False))
def test_the_order_of_votes_does_not_matter(cast: list[Verdict], rng: object) -> None:
    shuffled = list(cast)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tally(shuffled) == tally(cast)


def test_aggregate_of_both_orders() -> None:
    judged = aggregate([A, A, B], [B, B, BAD])
    assert judged.verdict is A
    assert judged.agree is True
    assert judged.confidence == 4 / 6
    assert judged.parse_failures == 1
    assert judged.orders["BA"].verdict is A  # in the pair's letters
    assert judged.orders["BA"].share == 2 / 3


def test_aggregate_of_one_order_and_of_disagreement() -> None:
    one = aggregate([B, B, TIE])
    assert (one.verdict, one.agree, one.confidence) == (B, None, 2 / 3)
    assert "BA" not in one.orders
    first_always = aggregate([A], [A])
    assert (first_always.verdict, first_always.agree) == (TIE, False)


@given(votes, votes)
def test_aggregate_is_symmetric_in_the_responses(ab: list[Verdict], ba: list[Verdict]) -> None:
    one, other = aggregate(ab, ba), aggregate(ba, ab)
    assert other.verdict is swap(one.verdict)
    assert other.confidence == one.confidence
    assert 0 <= one.confidence <= 1


@pytest.mark.parametrize(
    ("ab", "ba", "log_odds", "verdict", "confidence"),
    [
        ([A], [A], 0.3, A, 0.5),  # the first place twice: the probability decides,
        ([A], [A], -0.3, B, 0.5),
        ([A, A, B], [A, A, A], 2.0, A, 2 / 6),  # also against the votes,
        ([A, A, B], [A, A, A], None, B, 4 / 6),  # which decide without it,
        ([A], [A], None, B, 0.5),  # and the coin, if they are level
        ([TIE], [TIE], None, B, 0.0),
        ([TIE], [B], 0.0, A, 0.5),
        ([BAD], [B], None, A, 0.5),
        ([BAD, BAD], [BAD, BAD], None, BAD, 1.0),
        ([A], [B], -9.0, A, 1.0),  # no tie: nothing to settle
    ],
)
def test_a_tie_is_settled(
    ab: list[Verdict],
    ba: list[Verdict],
    log_odds: float | None,
    verdict: Verdict,
    confidence: float,
) -> None:
    before = aggregate(ab, ba)
    after = settle(before, [*ab, *map(swap, ba)], log_odds, coin=B)
    assert (after.verdict, after.confidence) == (verdict, pytest.approx(confidence))
    assert (after.agree, after.orders) == (before.agree, before.orders)
