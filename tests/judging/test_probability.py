"""Verdict probabilities from token alternatives, whatever the tokens are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.judging import (
    Probability,
    Token,
    Verdict,
    load_judge_template,
    mark_logprobs,
    of_votes,
    over_orders,
)

MARKS = ("[[A]]", "[[B]]", "[[C]]")
SMALL = load_judge_template("smallworld")


def spelt(text: str, others: dict[str, float]) -> Token:
    """A token and others at its place by text, with their probabilities; its own is the rest."""
    own = 1 - sum(others.values())
    top = [(text, math.log(own)), *((one, math.log(p)) for one, p in others.items())]
    return Token(text, math.log(own), sorted(top, key=lambda pair: -pair[1]))


def sure(*texts: str) -> list[Token]:
    return [spelt(text, {"~": 1e-9}) for text in texts]


def read(*tail: Token, marks: tuple[str, ...] = MARKS) -> list[float]:
    found = mark_logprobs(tail, marks)
    assert found is not None
    return [math.exp(value) for value in found]


@pytest.mark.parametrize(
    "tail",
    [
        [*sure("so", " [["), spelt("A", {"B": 0.2, "C": 0.1}), *sure("]]", "<end>")],
        [*sure("\n", "[["), spelt("A]]", {"B]]": 0.2, "C]]": 0.1})],
        [*sure("\n", "["), spelt("[A", {"[B": 0.2, "[C": 0.1}), *sure("]]")],
        [*sure("so"), spelt("[[A", {"[[B": 0.2, "[[C": 0.1}), *sure("]]")],
        [*sure("so"), spelt("[[A]]", {"[[B]]": 0.2, "[[C]]": 0.1})],
        [*sure("so"), spelt(" [[A]]", {" [[B]]": 0.2, "[[C]]": 0.1})],  # one without the blank
        [*sure("so"), spelt("[[A]]", {"\n[[B]]": 0.2, " [[C]]": 0.1})],
        [*sure("so"), spelt("\n\n[[A", {"\n\n[[B": 0.2, "\n\n[[C": 0.1}), *sure("]]")],
        [*sure("**[["), spelt("A", {"B": 0.15, "B]]": 0.05, "C]]\n": 0.1}), *sure("]]**")],
        [*sure("so", " [["), *sure("", "", ""), spelt("A", {"B": 0.2, "C": 0.1}), *sure("]]")],
    ],
)
def test_marks_however_they_are_cut(tail: list[Token]) -> None:
    assert read(*tail) == pytest.approx([0.7, 0.2, 0.1])


def test_what_makes_no_mark_does_not_count() -> None:
    tail = [*sure("[["), spelt("A", {"B": 0.2, "C": 0.1, " B": 0.1, "Z": 0.1}), *sure("]]")]
    assert read(*tail) == pytest.approx([0.5 / 0.8, 0.2 / 0.8, 0.1 / 0.8])
    # "[[" may become any of them, so it says nothing about which
    tail = [*sure("so "), spelt("[[A", {"[[B": 0.2, "[[C": 0.1, "[[": 0.3}), *sure("]]")]
    assert read(*tail) == pytest.approx([0.4 / 0.7, 0.2 / 0.7, 0.1 / 0.7])


def test_marks_that_part_at_different_tokens() -> None:
    marks = ("Answer A", "Answer B", "Neither")
    first = spelt("Answer", {"Neither": 0.3, "Because": 0.2})
    tail = [*sure("\n"), first, spelt(" B", {" A": 0.25, " C": 0.25})]
    assert read(*tail, marks=marks) == pytest.approx(
        [0.5 * 0.25 / 0.675, 0.5 * 0.5 / 0.675, 0.3 / 0.675]
    )
    tail = [*sure("\n"), spelt("Ne", {"Answer": 0.3, "An": 0.1}), *sure("ither")]
    one, other, neither = read(*tail, marks=marks)
    assert neither == pytest.approx(0.6 / (0.6 + 2 * 0.1), rel=1e-6), "which of two is not told"
    assert one == other


def test_a_mark_that_is_not_listed_is_as_likely_as_the_last_one_listed() -> None:
    tail = [*sure("[["), spelt("A", {"Z": 0.02, "B": 0.01}), *sure("]]")]
    assert read(*tail) == pytest.approx([0.97 / 0.99, 0.01 / 0.99, 0.01 / 0.99])
    # Nor is it less likely because a rare token was drawn, which is told beside the most likely.
    drawn = Token("B", math.log(0.001), [("A", math.log(0.9)), ("Z", math.log(0.05))])
    assert read(*sure("[["), drawn, *sure("]]")) == pytest.approx(
        [0.9 / 0.951, 0.001 / 0.951, 0.05 / 0.951]
    )


def test_the_last_mark_counts() -> None:
    tail = [*sure("not [[B]] but [["), spelt("A", {"B": 0.2, "C": 0.1}), *sure("]]")]
    assert read(*tail) == pytest.approx([0.7, 0.2, 0.1])


def test_what_cannot_be_told_is_none() -> None:
    assert mark_logprobs([], MARKS) is None
    assert mark_logprobs(sure("no", " verdict"), MARKS) is None
    assert mark_logprobs(sure("A", "]]"), MARKS) is None  # the tail begins within the mark
    alone = Token("A", -0.1, [("A", -0.1)])
    assert mark_logprobs([*sure("[["), alone, *sure("]]")], MARKS) is None


def test_impossible_alternatives_do_no_harm() -> None:
    tail = [*sure("[["), Token("A", 0.0, [("A", 0.0), ("B", -9999.0), ("C", -9999.0)])]
    found = mark_logprobs([*tail, *sure("]]")], MARKS)
    assert found is not None and found[0] == pytest.approx(0)
    assert found[1] == found[2] == -50


@given(
    st.sampled_from(MARKS),
    st.text("[]AB .\n", max_size=6),
    st.sets(st.integers(0, 12)),
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_any_tokens_of_any_text(
    written: str, before: str, cuts: set[int], weights: list[int]
) -> None:
    """Cut the text anywhere; where the letter stands, all three letters are told."""
    text = before + written + "\n"
    letter = len(before) + 2
    shares = {mark: weight / sum(weights) for mark, weight in zip(MARKS, weights, strict=True)}
    ends = sorted({cut for cut in cuts if 0 < cut < len(text)} | {len(text)})
    tail, begin = [], 0
    for end in ends:
        piece = text[begin:end]
        if begin <= letter < end:
            top = [
                (text[begin:letter] + mark[2] + text[letter + 1 : end], math.log(share))
                for mark, share in shares.items()
            ]
            tail.append(Token(piece, math.log(shares[written]), top))
        else:
            tail += sure(piece)
        begin = end
    if text.rfind(written) == len(before):
        assert read(*tail) == pytest.approx(list(shares.values()))


def logs(a: float, b: float, tie: float) -> tuple[float, ...]:
    return tuple(math.log(p) for p in (a, b, tie))


def test_votes_are_averaged_and_unreadable_ones_left_out() -> None:
    votes = [
        (Verdict.A, logs(0.8, 0.1, 0.1)),
        (Verdict.B, logs(0.2, 0.7, 0.1)),
        (Verdict.UNPARSABLE, logs(0.01, 0.98, 0.01)),
        (Verdict.A, None),
    ]
    found = of_votes(SMALL, votes)
    assert found is not None
    assert (found.a, found.b, found.tie) == pytest.approx((0.5, 0.4, 0.1))
    assert of_votes(SMALL, votes[2:]) is None
    plain = of_votes(load_judge_template("criteria"), [(Verdict.A, (math.log(0.9), math.log(0.1)))])
    assert plain is not None and (plain.a, plain.tie) == pytest.approx((0.9, 0))


odds = st.floats(-40, 40)


@given(odds, odds, st.floats(0, 1))
def test_a_liking_for_a_place_cancels(true: float, bias: float, tie: float) -> None:
    shown = [Probability(true + bias, tie), Probability(-true + bias, tie)]  # as shown: AB, BA
    both = over_orders([shown[0], shown[1].swapped()])
    assert both.log_odds == pytest.approx(true, abs=1e-9)
    assert both.a + both.b + both.tie == pytest.approx(1)
    hot = over_orders([both], temperature=4)
    assert hot.log_odds == pytest.approx(true / 4, abs=1e-9) and hot.tie == pytest.approx(tie)
    assert hot.without_tie().a + hot.without_tie().b == pytest.approx(1)
