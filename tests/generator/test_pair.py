"""Pairs: chosen answers the instruction, rejected answers the modified one; no degenerate pairs."""

from __future__ import annotations

from typing import Any

import pytest

from selftaught.contracts import PairSettings, SamplingSettings
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
