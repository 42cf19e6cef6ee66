"""Selection: every row is kept or dropped for a counted reason; the order is seeded and stable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.contracts import SelectSettings
from services.generator.select import Digests, select

Rows = list[dict[str, Any]]


def run(
    tmp_path: Path, rows: Rows, settings: SelectSettings | None = None, seed: int = 1
) -> tuple[Rows, Rows, dict[str, int]]:
    return run_with_report(tmp_path, rows, settings or SelectSettings(), seed)[:3]


def run_with_report(
    tmp_path: Path, rows: Rows, settings: SelectSettings, seed: int = 1
) -> tuple[Rows, Rows, dict[str, int], dict[str, Any]]:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    kept: Rows = []
    dropped: Rows = []
    counts, report = select(source, settings, seed, kept.append, dropped.append)
    return kept, dropped, counts, report


def test_reasons_are_written_and_counted(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Sort this list", "id": "a"},
        {"instruction": "  sort\tTHIS  list ", "id": "b"},
        {"instruction": " \n "},
        {"instruction": "ab"},
        {"instruction": "x" * 31},
        {"instruction": "Another text", "id": "a"},
        {"instruction": " Straße bauen "},
        {"instruction": "STRASSE bauen"},
        {"instruction": "x" * 30, "id": 7},
    ]
    kept, dropped, counts = run(tmp_path, rows, SelectSettings(min_chars=3, max_chars=30))
    assert [(d["row"], d["reason"]) for d in dropped] == [
        (2, "duplicate"),
        (3, "empty"),
        (4, "too_short"),
        (5, "too_long"),
        (6, "duplicate_id"),
        (8, "duplicate"),
    ]
    assert counts == {
        "rows": 9,
        "kept": 3,
        "dropped_duplicate": 2,
        "dropped_empty": 1,
        "dropped_too_short": 1,
        "dropped_too_long": 1,
        "dropped_duplicate_id": 1,
    }
    texts = {row["instruction"]: row["id"] for row in kept}
    assert texts["Sort this list"] == "a"
    assert texts["x" * 30] == "7"
    assert texts["Straße bauen"].startswith("i-")


def test_order_is_shuffled_seeded_and_independent_of_other_rows(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "instruction": f"do {i}"} for i in range(60)]
    kept, _, _ = run(tmp_path, rows)
    assert sorted(kept, key=lambda r: int(r["id"][1:])) == rows
    assert kept != rows
    assert run(tmp_path, rows)[0] == kept
    assert run(tmp_path, rows[::-1])[0] == kept
    assert run(tmp_path, rows, seed=2)[0] != kept
    assert run(tmp_path, rows[::2])[0] == [row for row in kept if int(row["id"][1:]) % 2 == 0]


def test_texts_survive_byte_for_byte(tmp_path: Path) -> None:
    texts = ["a\u2028b", "line\nline", "emoji 🙂 {x}", "ünï"]
    kept, _, _ = run(tmp_path, [{"instruction": text} for text in texts])
    assert {row["instruction"] for row in kept} == set(texts)


def test_a_line_that_is_not_json_names_itself(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"instruction": "a"}\n{"instruction": \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2"):
        select(source, SelectSettings(), 1, print, print)


def reasons(dropped: Rows) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in dropped}


MARKED: Rows = [
    {"id": "en", "instruction": "one two", "language": "English", "toxic": False},
    {"id": "fr", "instruction": "un deux", "language": "French"},
    {"id": "none", "instruction": "mystery"},
    {"id": "toxic", "instruction": "bad words", "language": "English", "toxic": True},
    {"id": "cut", "instruction": "call NAME_1", "language": "English", "redacted": True},
]


def test_filters_on_what_the_data_says_are_off_until_asked_for(tmp_path: Path) -> None:
    kept, dropped, _ = run(tmp_path, MARKED)
    assert len(kept) == 5 and dropped == []


def test_languages_are_an_allowlist_that_a_row_must_pass(tmp_path: Path) -> None:
    _, dropped, counts = run(tmp_path, MARKED, SelectSettings(languages=["english", "German"]))
    assert reasons(dropped) == {"fr": "language", "none": "no_language"}
    assert counts["dropped_language"] == counts["dropped_no_language"] == 1


def test_marked_rows_are_dropped_by_their_mark(tmp_path: Path) -> None:
    _, dropped, _ = run(tmp_path, MARKED, SelectSettings(drop_toxic=True, drop_redacted=True))
    assert reasons(dropped) == {"toxic": "toxic", "cut": "redacted"}


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("Answer jane.doe@example.com for me", True),
        ("Who calls from +44 20 7946 0958?", True),
        ("Is (650) 253-0000 a real number?", True),
        ("Validate 4111 1111 1111 1111", True),
        ("Pay into DE89 3704 0044 0532 0130 00 today", True),
        ("Clone git@github.com:owner/name.git", False),
        ("Is 4111 1111 1111 1112 prime?", False),
        ("What happened between 1914-1918 and 1939-1945?", False),
        ("Multiply 3.14159265 by 27182818", False),
    ],
)
def test_personal_data_is_found_when_asked_for(tmp_path: Path, text: str, dropped: bool) -> None:
    rows = [{"id": "x", "instruction": text}]
    assert len(run(tmp_path, rows)[0]) == 1
    found = reasons(run(tmp_path, rows, SelectSettings(drop_pii=True))[1])
    assert found == ({"x": "pii"} if dropped else {})


LONG = "write a short story about a brave fox that crosses the wide river at night"


def test_near_duplicates_go_and_the_first_stays(tmp_path: Path) -> None:
    rows = [
        {"id": "first", "instruction": LONG},
        {"id": "close", "instruction": f"Please {LONG}."},
        {"id": "other", "instruction": "write a short poem about the sea in winter"},
        {"id": "short", "instruction": "write"},
    ]
    assert len(run(tmp_path, rows)[0]) == 4
    for _ in range(2):
        _, dropped, _ = run(tmp_path, rows, SelectSettings(near_duplicates=0.7))
        assert reasons(dropped) == {"close": "near_duplicate"}
    # 12 of 15 shingles are shared: 0.8 exactly, which a signature could only estimate
    assert len(run(tmp_path, rows, SelectSettings(near_duplicates=0.8))[1]) == 1
    assert run(tmp_path, rows, SelectSettings(near_duplicates=0.81))[1] == []


def test_of_many_variants_of_a_text_one_stays(tmp_path: Path) -> None:
    rows = [{"id": f"v{i}", "instruction": f"{LONG} {i}"} for i in range(50)]
    rows += [{"id": f"u{i}", "instruction": f"{i} a{i} b{i} c{i}"} for i in range(50)]
    kept, _, counts = run(tmp_path, rows, SelectSettings(near_duplicates=0.8))
    assert counts["dropped_near_duplicate"] == 49
    assert {row["id"] for row in kept} == {"v0", *(f"u{i}" for i in range(50))}


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": " And then? "},
    {"role": "assistant", "content": "Nothing."},
]


def test_of_a_conversation_the_first_turn_alone_or_the_last_with_what_came_before(
    tmp_path: Path,
) -> None:
    rows = [
        {"id": "c", "instruction": "What is 2+2?", "messages": CONVERSATION, "reference": "4"},
        {"id": "s", "instruction": "Sing", "messages": [{"role": "user", "content": "Sing"}]},
        {"id": "p", "instruction": "Plain", "language": "English", "toxic": False},
    ]
    first = {row["id"]: row for row in run(tmp_path, rows)[0]}
    assert first == {
        "c": {"id": "c", "instruction": "What is 2+2?", "reference": "4"},
        "s": {"id": "s", "instruction": "Sing"},
        "p": {"id": "p", "instruction": "Plain", "language": "English"},
    }
    last = {row["id"]: row for row in run(tmp_path, rows, SelectSettings(turn="last"))[0]}
    assert last["c"] == {
        "id": "c",
        "instruction": "And then?",
        "context": CONVERSATION[:3],
        "reference": "4",
    }
    assert (last["s"], last["p"]) == (first["s"], first["p"])


def test_the_same_last_words_of_two_conversations_are_no_duplicates(tmp_path: Path) -> None:
    def talk(name: str, topic: str) -> dict[str, Any]:
        said = [topic, "Sure.", "Go on"]
        roles = ["user", "assistant", "user"]
        messages = [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]
        return {"id": name, "instruction": topic, "messages": messages}

    rows = [
        talk("a", "Tell me of cats"),
        talk("b", "Tell me of dogs"),
        talk("c", "tell me of DOGS"),
    ]
    _, dropped, _ = run(tmp_path, rows, SelectSettings(turn="last"))
    assert reasons(dropped) == {"c": "duplicate"}
    # "Tell me of cats\nSure.\nGo on" has 27 characters
    assert run(tmp_path, rows[:1], SelectSettings(turn="last", max_chars=27))[1] == []
    long = run(tmp_path, rows[:1], SelectSettings(turn="last", max_chars=26))[1]
    assert reasons(long) == {"a": "too_long"}


def test_the_report_tells_what_was_selected(tmp_path: Path) -> None:
    rows = [*MARKED, {"id": "no", "instruction": " "}]
    *_, report = run_with_report(tmp_path, rows, SelectSettings(drop_toxic=True))
    assert report == {
        "rows": 6,
        "kept": 4,
        "dropped": {"empty": 1, "toxic": 1},
        "chars": {"min": 7, "p25": 7, "median": 7, "p75": 7, "p95": 7, "max": 11},
        "languages": {"English": 2, "French": 1, "unknown": 1},
    }
    *_, empty = run_with_report(tmp_path, rows[-1:], SelectSettings())
    assert empty["chars"] is None and empty["languages"] == {}


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=60))
def test_digests_are_a_set(numbers: list[int]) -> None:
    digests, wanted = Digests(), set[int]()
    for number in numbers:
        known = max(number, 1)  # 0 is taken for 1
        assert (number in digests) == (known in wanted)
        digests.add(number)
        wanted.add(known)
    assert len(digests) == len(wanted)


def test_digests_grow() -> None:
    digests = Digests()
    numbers = [number * 2**54 + 7 for number in range(1000)]  # all want the same place
    numbers += [int(word) for word in np.random.default_rng(1).integers(1, 2**63, 5000)]
    for number in numbers:
        assert number not in digests
        digests.add(number)
    assert len(digests) == 6000 and all(number in digests for number in numbers)
