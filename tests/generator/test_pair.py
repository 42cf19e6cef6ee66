"""Pairs: chosen answers the instruction, rejected answers the modified one; no degenerate pairs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from selftaught.contracts import PairSettings, SamplingSettings
from selftaught.hashing import stable_seed
from selftaught.judging import ModifyTemplate
from services.generator.pair import make_pairs
from tests.generator.scripted import Scripted

TEMPLATE = ModifyTemplate(name="m", user="change: {instruction}", start="<m>", end="</m>")
SETTINGS = PairSettings(
    respond=SamplingSettings(temperature=0.1), modify=SamplingSettings(temperature=0.9)
)


def rows(*instructions: str) -> list[dict[str, Any]]:
    return [{"id": f"p{i}", "instruction": text} for i, text in enumerate(instructions)]


def test_a_pair_is_two_answers_to_two_questions() -> None:
    def script(shown: str, seed: int, sample: int) -> str:
        if shown.startswith("change: "):
            return f"<m>not {shown.removeprefix('change: ')}</m>"
        return f" answer to {shown} "

    engine = Scripted(script)
    pairs = make_pairs(rows("x", "y"), engine, TEMPLATE, SETTINGS, seed=3)
    assert pairs.rows[0] == {
        "id": "p0",
        "instruction": "x",
        "modified_instruction": "not x",
        "chosen": "answer to x",
        "rejected": "answer to not x",
    }
    assert (pairs.counts["instructions"], pairs.counts["pairs"]) == (2, 2)
    assert [sampling.temperature for _, sampling in engine.calls] == [0.9, 0.1, 0.1]
    written = 2 * (len("<m>not x</m>") + len(" answer to x ") + len(" answer to not x "))
    assert pairs.counts["completion_tokens"] == written


@pytest.mark.parametrize(
    ("modification", "good", "bad", "reason"),
    [
        ("no marks", "g", "b", "modification_unparsable"),
        ("<m> X  y</m>", "g", "b", "modification_unchanged"),
        ("<m>other</m>…", "g", "b", "truncated"),
        ("<m>other</m>", "g…", "b", "truncated"),
        ("<m>other</m>", "g", "b…", "truncated"),
        ("<m>other</m>", " ", "b", "empty"),
        ("<m>other</m>", "g", "", "empty"),
        ("<m>other</m>", "Same  text", "same text", "equal"),
    ],
)
def test_degenerate_pairs_are_dropped_and_counted(
    modification: str, good: str, bad: str, reason: str
) -> None:
    answers = {"change: x y": modification, "x y": good, "other": bad}
    engine = Scripted(lambda shown, seed, sample: answers[shown])
    pairs = make_pairs(rows("x y"), engine, TEMPLATE, SETTINGS, seed=3)
    assert pairs.rows == []
    assert pairs.dropped == [{"id": "p0", "reason": reason}]
    assert pairs.counts[f"dropped_{reason}"] == 1


def test_seeds_belong_to_the_instruction_not_to_its_place() -> None:
    def seeds(ids: list[str], seed: int = 3) -> dict[tuple[str, str], int]:
        engine = Scripted(lambda shown, s, sample: f"<m>{shown} too</m>")
        chunk = [{"id": i, "instruction": i} for i in ids]
        make_pairs(chunk, engine, TEMPLATE, SETTINGS, seed)
        return {
            (f"{call}", request.messages[-1]["content"]): request.seed
            for call, (requests, _) in enumerate(engine.calls)
            for request in requests
        }

    together = seeds(["a", "b", "c"])
    assert together == seeds(["c"]) | seeds(["b", "a"])
    assert len(set(together.values())) == 9
    assert seeds(["a"], seed=4) != seeds(["a"])


def test_the_default_asks_and_counts_as_it_always_did() -> None:
    engine = Scripted(lambda shown, seed, sample: "<m>n</m>" if "change" in shown else shown)
    pairs = make_pairs(rows("x"), engine, TEMPLATE, SETTINGS, seed=3)
    seeds = [(r.seed, r.n, r.first) for requests, _ in engine.calls for r in requests]
    assert seeds == [
        (stable_seed(3, part, "p0"), 1, 0) for part in ("modify", "chosen", "rejected")
    ]
    assert set(pairs.counts) == {"instructions", "pairs", "prompt_tokens", "completion_tokens"}


def test_an_unusable_modification_is_asked_for_again_by_itself() -> None:
    def script(shown: str, seed: int, sample: int) -> str:
        if not shown.startswith("change: "):
            return f"answer to {shown}"
        usable = {"first": 0, "second": 1, "third": 2, "never": 9}[shown.removeprefix("change: ")]
        return f"<m>try {sample}</m>" if sample >= usable else "no marks"

    engine = Scripted(script)
    settings = SETTINGS.model_copy(update={"retries": 2})
    chunk = rows("first", "third", "never", "second")
    pairs = make_pairs(chunk, engine, TEMPLATE, settings, seed=3)
    assert [row["modified_instruction"] for row in pairs.rows] == ["try 0", "try 2", "try 1"]
    assert pairs.dropped == [{"id": "p2", "reason": "modification_unparsable"}]
    assert pairs.counts["retried"] == 3 + 2
    asked = [(r.messages[-1]["content"], r) for requests, _ in engine.calls for r in requests]
    modify = [(shown.removeprefix("change: "), r) for shown, r in asked if "change: " in shown]
    names = [name for name, _ in modify]
    assert names == ["first", "third", "never", "second", *chunk_names(1, 2, 3), *chunk_names(1, 2)]
    assert {(r.seed, r.first) for _, r in modify} == {
        (stable_seed(3, "modify", f"p{i}"), attempt)
        for i, attempts in enumerate((1, 3, 3, 2))
        for attempt in range(attempts)
    }


def chunk_names(*places: int) -> list[str]:
    return [("first", "third", "never", "second")[place] for place in places]


def test_greedy_retries_are_refused() -> None:
    greedy = SamplingSettings(temperature=0)
    assert PairSettings(modify=greedy).retries == 0
    for wrong in (
        {"modify": greedy, "retries": 1},
        {"respond": greedy, "construction": "verified"},
    ):
        with pytest.raises(ValidationError, match="greedy"):
            PairSettings.model_validate(wrong)


ONE_CALL = ModifyTemplate(
    name="o", user="x {instruction} y {response}", start="<m>", end="</m>", response_end="</r>"
)


def test_one_call_writes_the_modified_instruction_and_its_answer() -> None:
    def script(shown: str, seed: int, sample: int) -> str:
        return "<m>not q</m> bad </r>" if shown == "x q y good" else " good "

    engine = Scripted(script)
    pairs = make_pairs(rows("q"), engine, ONE_CALL, SETTINGS, seed=3)
    assert pairs.rows == [
        {
            "id": "p0",
            "instruction": "q",
            "modified_instruction": "not q",
            "chosen": "good",
            "rejected": "bad",
        }
    ]
    assert [sampling.temperature for _, sampling in engine.calls] == [0.1, 0.9]


@pytest.mark.parametrize(
    ("good", "reply", "reason"),
    [
        ("g…", "<m>other</m>b</r>", "truncated"),
        (" ", "<m>other</m>b</r>", "empty"),
        ("g", "<m>other</m>b</r>…", "truncated"),
        ("g", "<m>other</m>b", "modification_unparsable"),
        ("g", "<m>other</m></r>", "modification_unparsable"),
        ("g", "<m>Q</m>b</r>", "modification_unchanged"),
        ("g", "<m>other</m> G </r>", "equal"),
        ("g", "I'm sorry, but no.", "refusal"),
        ("g", "<m>other</m>I cannot help with that.</r>", "refusal"),
    ],
)
def test_a_bad_one_call_reply_is_dropped_for_its_reason(good: str, reply: str, reason: str) -> None:
    engine = Scripted(lambda shown, seed, sample: reply if shown.startswith("x ") else good)
    settings = SETTINGS.model_copy(update={"drop_refusals": True})
    pairs = make_pairs(rows("q"), engine, ONE_CALL, settings, seed=3)
    assert pairs.rows == []
    assert pairs.dropped == [{"id": "p0", "reason": reason}]


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [
        ("I’m sorry, I can't do that.", True),
        ("Sorry, no.", True),
        ("I cannot help with this request.", True),
        ("As an AI language model I must decline.", True),
        ("I can't log in to my account. What now?", False),
        ("Write an apology that opens with: I'm sorry", False),
        ("An AI startup needs a name. Suggest five.", False),
    ],
)
def test_a_refusal_to_modify_is_told_from_an_instruction(reply: str, refuses: bool) -> None:
    bare = ModifyTemplate(name="bare", user="change: {instruction}")
    engine = Scripted(
        lambda shown, seed, sample: reply if shown.startswith("change: ") else f"to {shown}"
    )
    settings = SETTINGS.model_copy(update={"drop_refusals": True})
    pairs = make_pairs(rows("q"), engine, bare, settings, seed=3)
    assert [row["reason"] for row in pairs.dropped] == (["refusal"] if refuses else [])
    assert len(make_pairs(rows("q"), engine, bare, SETTINGS, seed=3).rows) == 1


@pytest.mark.parametrize(("threshold", "dropped"), [(1.0, False), (0.91, False), (0.9, True)])
def test_near_equal_responses_are_dropped_from_a_threshold_on(
    threshold: float, dropped: bool
) -> None:
    words = "one two three four five six seven eight nine"  # 9 of 10 words: similarity 0.9
    answers = {"change: x": "<m>other</m>", "x": f"{words} ten", "other": f"{words} eleven"}
    engine = Scripted(lambda shown, seed, sample: answers[shown])
    settings = SETTINGS.model_copy(update={"near_equal": threshold})
    pairs = make_pairs(rows("x"), engine, TEMPLATE, settings, seed=3)
    assert [row["reason"] for row in pairs.dropped] == (["near_equal"] if dropped else [])


@pytest.mark.parametrize("template", [TEMPLATE, ONE_CALL])
def test_a_conversation_stands_before_the_instruction_in_every_prompt(
    template: ModifyTemplate,
) -> None:
    context = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    engine = Scripted(
        lambda shown, seed, sample: (
            "<m>other</m> bad </r>" if "conversation so far" in shown else shown
        )
    )
    chunk = [{"id": "p0", "instruction": "x", "context": context, "reference": "r"}]
    (pair,) = make_pairs(chunk, engine, template, SETTINGS, seed=3).rows
    assert (pair["context"], pair["chosen"]) == (context, "x")
    assert "reference" not in pair
    prompts = [list(request.messages) for requests, _ in engine.calls for request in requests]
    (modify,) = [prompt for prompt in prompts if len(prompt) == 1]
    assert "User: Hi\n\nAssistant: Hello" in modify[0]["content"]
    responses = [prompt for prompt in prompts if len(prompt) > 1]
    assert responses == [
        [*context, {"role": "user", "content": asked}]
        for asked in ("x", "other")[: len(prompts) - 1]
    ]


VERIFIED = PairSettings(
    construction="verified", samples=4, respond=SamplingSettings(temperature=0.5)
)


def test_a_verified_pair_is_the_first_right_and_the_first_wrong_answer() -> None:
    said = ["it is 41", "#### 42", "42", "40"]
    engine = Scripted(lambda shown, seed, sample: said[sample])
    chunk = [{"id": "p0", "instruction": "6*7", "reference": "So 6*7.\n#### 42"}]
    pairs = make_pairs(chunk, engine, TEMPLATE, VERIFIED, seed=3)
    assert pairs.rows == [
        {"id": "p0", "instruction": "6*7", "chosen": "#### 42", "rejected": "it is 41"}
    ]
    ((requests, sampling),) = engine.calls
    assert [(r.n, r.first) for r in requests] == [(4, 0)]
    assert sampling.temperature == 0.5
    assert pairs.counts["completion_tokens"] == sum(map(len, said))


@pytest.mark.parametrize(
    ("said", "reference", "reason"),
    [
        (["42", "42", "42", "42"], "42", "no_wrong"),
        (["41", "40", "no number", "42, or 41"], "42", "no_right"),
        (["41", "42…", "42…", "42…"], "42", "no_right"),
        (["42…", "41…", "42…", "42…"], "42", "truncated"),
        ([" ", "", " ", " "], "42", "empty"),
        (["41", "42", "42", "42"], None, "no_reference"),
    ],
)
def test_a_row_without_a_verified_pair_is_dropped_for_its_reason(
    said: list[str], reference: str | None, reason: str
) -> None:
    engine = Scripted(lambda shown, seed, sample: said[sample])
    chunk = [{"id": "p0", "instruction": "6*7", "reference": reference}]
    pairs = make_pairs(chunk, engine, TEMPLATE, VERIFIED, seed=3)
    assert (pairs.rows, pairs.dropped) == ([], [{"id": "p0", "reason": reason}])
    assert pairs.counts[f"dropped_{reason}"] == 1
