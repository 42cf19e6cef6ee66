"""Selection: every row is kept or dropped for a counted reason; the order is seeded and stable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftaught.contracts import SelectSettings
from services.generator.select import select

Rows = list[dict[str, Any]]


def run(
    tmp_path: Path, rows: Rows, settings: SelectSettings | None = None, seed: int = 1
) -> tuple[Rows, Rows, dict[str, int]]:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    kept: Rows = []
    dropped: Rows = []
    counts = select(source, settings or SelectSettings(), seed, kept.append, dropped.append)
    return kept, dropped, counts


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
