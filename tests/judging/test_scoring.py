"""Scoring: strict, symmetric, parse failures apart, chunks that add up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.judging import Verdict, load_judge_template
from selftaught.judging.scoring import (
    count_pair,
    judge_outcomes,
    merge_counts,
    score_pairs,
    summarise,
    wilson,
)
from tests.generator.scripted import Scripted

TEMPLATE = load_judge_template("smallworld")
SAY = {Verdict.A: "x [[A]]", Verdict.B: "x [[B]]", Verdict.TIE: "x [[C]]", Verdict.UNPARSABLE: "x"}
verdicts = st.sampled_from(list(Verdict))


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "instruction": f"q{i}.", "chosen": "good", "rejected": "bad"}
        for i in range(count)
    ]


def judge(said: list[tuple[Verdict, Verdict]]) -> Scripted:
    """A judge that says these verdicts (as shown) about pair 0, 1, ... in AB, BA."""

    def script(shown: str, seed: int, sample: int) -> str:
        number = int(shown.split("Instruction: q")[1].split(".")[0])
        return SAY[said[number]["Response A: good" not in shown]]

    return Scripted(script)


def score(said: list[tuple[Verdict, Verdict]]) -> dict[str, Any]:
    return summarise(score_pairs(judge(said), TEMPLATE, pairs(len(said)), max_tokens=9))


A, B, TIE, BAD = Verdict.A, Verdict.B, Verdict.TIE, Verdict.UNPARSABLE


def test_a_perfect_judge() -> None:
    summary = score([(A, B)] * 4)
    assert summary["strict_accuracy"] == summary["mean_accuracy"] == 1
    assert summary["position_bias"] == summary["ties"] == summary["parse_failures"] == 0


def test_a_judge_that_always_says_the_first() -> None:
    summary = score([(A, A)] * 4)
    assert summary["strict_accuracy"] == 0
    assert summary["mean_accuracy"] == 0.5
    assert (summary["accuracy_winner_first"], summary["accuracy_winner_last"]) == (1, 0)
    assert summary["position_bias"] == 1
    assert summary["ties"] == 1
    assert score([(B, B)])["position_bias"] == -1


def test_ties_and_parse_failures_are_wrong_but_told_apart() -> None:
    summary = score([(A, B), (TIE, TIE), (BAD, B), (A, BAD), (BAD, BAD)])
    assert summary["n"] == 5
    assert summary["strict_accuracy"] == 1 / 5
    assert summary["mean_accuracy"] == 4 / 10
    assert summary["ties"] == 1 / 5
    assert summary["parse_failures"] == 4 / 10
    assert summary["position_bias"] == 0


def test_judging_is_greedy_and_limited() -> None:
    engine = judge([(A, B)])
    score_pairs(engine, TEMPLATE, pairs(1), max_tokens=77)
    [(requests, sampling)] = engine.calls
    assert (sampling.temperature, sampling.max_tokens) == (0, 77)
    assert len(requests) == 2


def test_a_judgment_that_was_cut_off_is_a_parse_failure() -> None:
    engine = Scripted(lambda shown, seed, sample: "[[A]]…")
    assert score_pairs(engine, TEMPLATE, pairs(1), 9)["parse_failures"] == 2


def test_outcomes_name_verdict_and_text() -> None:
    [outcome] = judge_outcomes(judge([(A, TIE)]), TEMPLATE, pairs(1), 9)
    assert outcome == {
        "id": "p0",
        "subset": None,
        "ab": "A",
        "ba": "tie",
        "verdict": "tie",
        "text_ab": "x [[A]]",
        "text_ba": "x [[C]]",
        "tokens": 14,
        "log_odds": None,
    }
    [asked] = judge_outcomes(judge([(A, TIE)]), TEMPLATE, pairs(1), 9, sure=True)
    assert asked == outcome, "an engine that tells no alternatives"


@given(st.lists(st.tuples(verdicts, verdicts), min_size=1, max_size=12), st.integers(0, 12))
def test_chunks_add_up(said: list[tuple[Verdict, Verdict]], cut: int) -> None:
    rows = [{**row, "subset": f"s/{i % 2}"} for i, row in enumerate(pairs(len(said)))]
    engine = judge(said)
    whole = score_pairs(engine, TEMPLATE, rows, 9)
    parts = [score_pairs(engine, TEMPLATE, part, 9) for part in (rows[:cut], rows[cut:])]
    assert merge_counts(parts) == whole
    summary = summarise(whole)
    assert sum(sub["n"] for sub in summary["subsets"].values()) == summary["n"] == len(said)
    weighted = sum(s["n"] * s["mean_accuracy"] for s in summary["subsets"].values())
    assert weighted / len(said) == pytest.approx(summary["mean_accuracy"])
    assert set(summary["subsets"]) == {f"s/{i % 2}" for i in range(len(said))}


@given(verdicts, verdicts)
def test_counts_of_one_pair_are_consistent(ab: Verdict, ba: Verdict) -> None:
    counts = count_pair(ab, ba)
    assert counts["strict_right"] == counts["right_ab"] * counts["right_ba"]
    judged = counts["verdict_a"] + counts["verdict_b"] + counts["parse_failures"]
    assert judged == 2 - [ab, ba].count(TIE)
    assert counts["strict_right"] + counts["ties"] <= 1


def test_nothing_scored_has_no_rates() -> None:
    summary = summarise({})
    assert summary["n"] == 0
    assert summary["strict_accuracy"] is None
    assert summary["ci95"] is None
    assert summary["position_bias"] is None


def test_wilson_interval() -> None:
    assert wilson(8, 10) == pytest.approx([0.4902, 0.9433], abs=1e-4)  # statsmodels' value
    assert wilson(0, 10) == pytest.approx([0.0, 0.2775], abs=1e-4)
    assert wilson(10, 10) == pytest.approx([0.7225, 1.0], abs=1e-4)
    assert wilson(0, 0) is None
