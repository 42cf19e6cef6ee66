"""Labels: read strictly, asked for again singly; quotas choose by them, with reasons."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from selftaught.contracts import LabelSettings, QuotaSettings, SamplingSettings
from selftaught.hashing import stable_seed
from selftaught.judging import LabelTemplate
from services.generator.label import choose, label_rows
from tests.generator.scripted import Scripted

TEMPLATE = LabelTemplate(name="l", user="what: {instruction}", categories=("math", "coding"))
GOOD = "Category: math\nComplexity: 2\nLength: page"


def test_rows_get_labels_and_failures_are_asked_for_again_by_themselves() -> None:
    def script(shown: str, seed: int, sample: int) -> str:
        usable = {"what: a": 0, "what: b": 1, "what: c": 9, "what: d": 1}[shown]
        return GOOD if sample >= usable else f"{GOOD}…" if shown == "what: d" else "Math!"

    engine = Scripted(script)
    chunk = [{"id": name, "instruction": name, "reference": "r"} for name in "abcd"]
    found = label_rows(chunk, engine, TEMPLATE, LabelSettings(retries=2), seed=5)
    labels = {"category": "math", "complexity": 2, "length": "page"}
    assert found.rows == [{**row, **labels} for row in chunk if row["id"] != "c"]
    assert found.dropped == [{"id": "c", "reason": "unlabelled"}]
    assert found.counts["labelled"] == 3
    assert found.counts["retried"] == 3 + 1
    assert found.counts["dropped_unlabelled"] == 1
    asked = [[(r.seed, r.first) for r in requests] for requests, _ in engine.calls]
    assert asked == [
        [(stable_seed(5, "label", name), attempt) for name in names]
        for attempt, names in enumerate(("abcd", "bcd", "c"))
    ]


def test_nothing_is_asked_again_when_all_could_be_read() -> None:
    engine = Scripted(lambda shown, seed, sample: GOOD)
    found = label_rows([{"id": "a", "instruction": "a"}], engine, TEMPLATE, LabelSettings(), 5)
    assert len(engine.calls) == 1
    assert set(found.counts) == {"labelled", "prompt_tokens", "completion_tokens"}


def test_the_conversation_is_shown() -> None:
    engine = Scripted(lambda shown, seed, sample: GOOD)
    context = [{"role": "user", "content": "Earlier words"}]
    row = {"id": "a", "instruction": "Go on", "context": context}
    label_rows([row], engine, TEMPLATE, LabelSettings(), 5)
    assert "Earlier words" in engine.calls[0][0][0].messages[-1]["content"]


def labelled(*labels: tuple[str, int]) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "category": category, "complexity": complexity, "length": "page"}
        for i, (category, complexity) in enumerate(labels)
    ]


ROWS = labelled(("math", 1), ("math", 3), ("coding", 4), ("math", 5), ("advice", 3), ("math", 4))


def chosen(
    quotas: QuotaSettings,
) -> tuple[list[str], dict[str, str], dict[str, int], dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    counts, report = choose(ROWS, quotas, kept.append, dropped.append)
    assert all(row in ROWS for row in kept)
    reasons = {row["id"]: row["reason"] for row in dropped}
    return [row["id"] for row in kept], reasons, counts, report


def test_quotas_choose_by_category_and_complexity() -> None:
    quotas = QuotaSettings(categories={"math": 2, "coding": None}, min_complexity=2)
    kept, reasons, counts, report = chosen(quotas)
    assert kept == ["r1", "r2", "r3"]
    assert reasons == {"r0": "complexity", "r4": "category", "r5": "quota"}
    assert counts == {
        "chosen": 3,
        "dropped_complexity": 1,
        "dropped_category": 1,
        "dropped_quota": 1,
    }
    assert report["labelled"]["category"] == {"advice": 1, "coding": 1, "math": 4}
    assert report["chosen"] == {
        "category": {"coding": 1, "math": 2},
        "complexity": {"3": 1, "4": 1, "5": 1},
        "length": {"page": 3},
    }


def test_empty_quotas_keep_everything_and_a_range_has_two_ends() -> None:
    assert len(chosen(QuotaSettings())[0]) == 6
    assert chosen(QuotaSettings(max_complexity=3))[0] == ["r0", "r1", "r4"]


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"min_complexity": 4, "max_complexity": 3}, {"categories": {"math": 0}}):
        with pytest.raises(ValidationError):
            QuotaSettings.model_validate(wrong)
    with pytest.raises(ValidationError, match="greedy"):
        LabelSettings(retries=1, sampling=SamplingSettings(temperature=0))
