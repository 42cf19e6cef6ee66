"""Rows as TRL and `datasets` have them: prompts and responses that are messages."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from services.api.uploads import one_by_one

U = {"role": "user", "content": "Swap: m f q", "name": None}
A = {"role": "assistant", "content": "q f m"}
B = {"role": "assistant", "content": "q m"}
S = {"role": "system", "content": "Be brief."}
ROW = {"id": "r1", "instruction": "Swap: m f q", "chosen": "q f m", "rejected": "q m"}


def read(row: dict[str, Any], kind: Any = "labelled", column: str | None = None) -> list[Any]:
    file = io.BytesIO(json.dumps(row).encode())
    return list(one_by_one(file, "jsonl", kind, column, 10_000, 10_000))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [U], "chosen": [A], "rejected": [B]},
        {"prompt": "Swap: m f q", "chosen": [A], "rejected": [B]},
        {"prompt": "Swap: m f q", "chosen": [U, A], "rejected": [U, B]},  # as UltraFeedback
        {"chosen": [U, A], "rejected": [U, B]},  # the prompt is implicit
        {"prompt": [U], "chosen": "q f m", "rejected": [U, B]},
        {"messages": [U], "chosen": [A], "rejected": "q m"},
    ],
)
def test_a_preference_in_every_form_is_the_same_row(row: dict[str, Any]) -> None:
    (found,) = read(row)
    assert found.data == ROW


def test_a_conversation_stands_before_its_last_message() -> None:
    prompt = [S, U, A, {"role": "user", "content": "Again: a b"}]
    (found,) = read({"prompt": prompt, "chosen": [{**A, "content": "b a"}], "rejected": [B]})
    text = found.data["instruction"]
    assert text.endswith("\n\nAgain: a b") and "System: Be brief.\n\nUser: Swap" in text
    assert found.data["chosen"] == "b a"
    (named,) = read({"q": prompt, "chosen": [A], "rejected": [B]}, column="q")
    assert named.data["instruction"] == text


def test_a_prompt_of_messages_is_a_conversation() -> None:
    for column in (None, "prompt"):
        (found,) = read({"prompt": [S, U]}, "instructions", column)
        assert found.data["instruction"] == "Swap: m f q"
        assert [one["role"] for one in found.data["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"chosen": [U, A], "rejected": [{**U, "content": "else"}, B]}, "rejected"),
        ({"prompt": "else", "chosen": [U, A], "rejected": [B]}, "chosen"),
        ({"prompt": [U], "chosen": [U], "rejected": [B]}, "chosen"),
        ({"prompt": [U], "chosen": [], "rejected": [B]}, "chosen"),
        ({"prompt": [U], "chosen": [{**A, "content": " "}], "rejected": [B]}, "chosen"),
        ({"prompt": [U], "chosen": [A], "rejected": [A]}, "rejected"),
        ({"prompt": [U], "chosen": [A]}, "rejected"),
        ({"prompt": [U, A], "chosen": [A], "rejected": [B]}, "prompt"),
        ({"prompt": [7], "chosen": [A], "rejected": [B]}, "prompt"),
        ({"chosen": [A], "rejected": [B]}, "instruction"),
        ({"prompt": [{**U, "role": "tool"}], "chosen": [A], "rejected": [B]}, "prompt"),
        ({"prompt": None, "chosen": [A], "rejected": [B]}, "prompt"),
    ],
)
def test_what_is_wrong_is_named(row: dict[str, Any], field: str) -> None:
    found = read(row)
    assert found and {one.field for one in found} == {field}, found
