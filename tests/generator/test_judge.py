"""Judging: both orders, labels by position, honest counts, seeds free of chunking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from selftaught.contracts import JudgeSettings, Recipe
from selftaught.judging import load_judge_template
from services.generator.judge import judge_pairs
from tests.generator.scripted import Scripted

TEMPLATE = load_judge_template("smallworld")
PAIRS: list[dict[str, Any]] = [
    {"id": f"p{i}", "instruction": f"do {i}", "chosen": "good", "rejected": "bad"} for i in range(4)
]


def shows_good_first(shown: str) -> bool:
    return "Response A: good" in shown


def test_labels_follow_the_chosen_response() -> None:
    def script(shown: str, seed: int, sample: int) -> str:
        return "because [[A]]" if shows_good_first(shown) else "because [[B]]"

    judged = judge_pairs(PAIRS, Scripted(script), TEMPLATE, JudgeSettings(samples=3), seed=1)
    assert len(judged.rows) == 4 * 2 * 3
    assert {(r["order"], r["label"], r["verdict"]) for r in judged.rows} == {
        ("AB", "A", "A"),
        ("BA", "B", "B"),
    }
    assert judged.counts["right"] == judged.counts["judgments_sampled"] == 24
    assert [r["sample"] for r in judged.rows[:3]] == [0, 1, 2]


def test_counts_add_up_and_keep_parse_failures_apart() -> None:
    texts = ["[[A]]", "[[B]]", "[[C]]", "who knows", "[[A]]…"]
    engine = Scripted(lambda shown, seed, sample: texts[sample])
    counts = judge_pairs(PAIRS[:1], engine, TEMPLATE, JudgeSettings(samples=5), seed=1).counts
    assert counts["judgments_sampled"] == 10
    assert counts["unparsable"] == 4  # the cut-off one too
    assert (counts["right"], counts["wrong"], counts["ties"]) == (2, 2, 2)
    assert counts["parsed"] == 6
    assert counts["completion_tokens"] == 2 * sum(map(len, texts))
    assert counts["prompt_tokens"] == sum(
        len(request.messages[0]["content"]) for request in engine.calls[0][0]
    )


def test_results_do_not_depend_on_chunks() -> None:
    def script(shown: str, seed: int, sample: int) -> str:
        return f"{seed} {sample} [[{'AB'[(seed + sample) % 2]}]]"

    def judge(pairs: list[dict[str, Any]], seed: int = 1) -> list[dict[str, Any]]:
        settings = JudgeSettings(samples=2)
        return judge_pairs(pairs, Scripted(script), TEMPLATE, settings, seed).rows

    together = judge(PAIRS)
    assert judge(PAIRS[:1]) + judge(PAIRS[1:]) == together
    assert judge(PAIRS, seed=2) != together
    assert len({row["text"].split()[0] for row in together}) == 8  # each pair and order its own


def test_all_samples_of_a_prompt_are_one_request() -> None:
    always: Callable[[str, int, int], str] = lambda shown, seed, sample: "[[A]]"  # noqa: E731
    engine = Scripted(always)
    judge_pairs(PAIRS, engine, TEMPLATE, JudgeSettings(samples=5), seed=1)
    [(requests, sampling)] = engine.calls
    assert [request.n for request in requests] == [5] * 8
    assert sampling == JudgeSettings().sampling


def by_sample(right_from: int) -> Callable[[str, int, int], str]:
    """Wrong, or a tie, or nothing, before sample `right_from`; right from there on."""

    def script(shown: str, seed: int, sample: int) -> str:
        right, wrong = ("[[A]]", "[[B]]") if shows_good_first(shown) else ("[[B]]", "[[A]]")
        return right if sample >= right_from else (wrong, "[[C]]", "who knows")[sample % 3]

    return script


@pytest.mark.parametrize(
    ("need", "right_from", "sampled"),
    [
        ("all", 0, 7),
        ("right", 0, 2),  # the first wave has one
        ("right", 2, 4),
        ("right", 5, 6),
        ("right", 99, 7),  # never: all N, the last wave is short
        ("right_and_wrong", 0, 7),  # nothing wrong ever comes
        ("right_and_wrong", 1, 2),
        ("right_and_wrong", 3, 4),
    ],
)
def test_an_input_is_asked_until_it_has_what_it_needs(
    need: str, right_from: int, sampled: int
) -> None:
    settings = JudgeSettings.model_validate({"samples": 7, "need": need, "wave": 2})
    judged = judge_pairs(PAIRS, Scripted(by_sample(right_from)), TEMPLATE, settings, seed=1)
    assert judged.counts["judgments_sampled"] == 8 * sampled
    assert judged.counts["judgments_spared"] == 8 * (7 - sampled)
    if sampled == 7:
        assert judged.counts["tokens_spared"] == 0
    elif need == "right" and right_from == 0:  # all texts are of one length, 5 tokens
        assert judged.counts["tokens_spared"] == 8 * 5 * (7 - sampled)
    assert [row["sample"] for row in judged.rows[:sampled]] == list(range(sampled))


def test_a_label_that_has_its_quota_is_asked_about_no_more() -> None:
    """Order AB (label A): pairs 0 and 1 are right at once. BA (label B): nothing ever is."""

    def script(shown: str, seed: int, sample: int) -> str:
        soon = any(f"do {i}" in shown for i in (0, 1))
        return "[[A]]" if shows_good_first(shown) and soon else "[[C]]"

    def sampled(quota: int | None) -> dict[str, list[int]]:
        settings = JudgeSettings(samples=6, need="right", wave=2)
        judged = judge_pairs(PAIRS, Scripted(script), TEMPLATE, settings, seed=1, quota=quota)
        counts = Counter((row["order"], row["pair_id"]) for row in judged.rows)
        assert judged.counts["judgments_spared"] == 8 * 6 - counts.total()
        return {order: [counts[order, f"p{i}"] for i in range(4)] for order in ("AB", "BA")}

    assert sampled(None) == {"AB": [2, 2, 6, 6], "BA": [6, 6, 6, 6]}
    assert sampled(3) == sampled(None)  # not met
    assert sampled(2) == {"AB": [2, 2, 2, 2], "BA": [6, 6, 6, 6]}
    assert sampled(1) == sampled(2)  # a wave is not cut


def test_a_quota_needs_inputs_that_can_have_enough() -> None:
    with pytest.raises(ValueError, match=r"judge\.quota"):
        Recipe.model_validate({"judge": {"quota": 5}})
    settings = {"judge": {"quota": 5, "need": "right"}}
    assert Recipe.model_validate(settings).judge.quota == 5
    with pytest.raises(ValueError, match="both_orders"):
        Recipe.model_validate({**settings, "curate": {"both_orders": True}})


def test_adaptive_judgments_are_the_first_ones_of_a_full_run() -> None:
    def script(shown: str, seed: int, sample: int) -> str:
        return f"{seed} {sample} [[{'AB'[(seed >> sample) % 2]}]]"

    def judge(need: str) -> list[dict[str, Any]]:
        settings = JudgeSettings.model_validate({"samples": 9, "need": need, "wave": 2})
        return judge_pairs(PAIRS, Scripted(script), TEMPLATE, settings, seed=3).rows

    full, adaptive = judge("all"), judge("right")
    assert len(adaptive) < len(full)
    assert [row for row in full if row in adaptive] == adaptive
    for pair in {(row["pair_id"], row["order"]) for row in full}:
        mine = [row for row in adaptive if (row["pair_id"], row["order"]) == pair]
        assert any(row["verdict"] == row["label"] for row in mine) or len(mine) == 9


def test_filters_that_look_at_all_judgments_need_all() -> None:
    for curate in ({"label": "majority"}, {"label": "random"}, {"min_share": 0.5}):
        with pytest.raises(ValueError, match=r"judge\.need"):
            Recipe.model_validate({"judge": {"need": "right"}, "curate": curate})
