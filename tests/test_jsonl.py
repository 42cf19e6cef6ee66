"""Finding rows in files without reading them whole."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from selftaught import jsonl


def write(path: Path, ids: list[str]) -> list[int]:
    """A row for each id, of any length; returns where they begin."""
    rng, offsets, at = random.Random(1), [], 0
    with path.open("w") as file:
        for one in ids:
            line = json.dumps({"id": one, "text": "x" * rng.choice([0, 3, 200])}) + "\n"
            offsets.append(at)
            at += file.write(line)
    return [*offsets, at]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_the_first_row_from_an_id_on(tmp_path: Path, count: int) -> None:
    ids = sorted(f"r{n}" for n in range(0, 2 * count, 2))
    offsets = write(tmp_path / "f", ids)
    for key in ["", "r", "s", *ids, *(f"{one}0" for one in ids), *(one[:-1] for one in ids)]:
        place = next((n for n, one in enumerate(ids) if one >= key), count)
        assert jsonl.first_from(tmp_path / "f", key) == offsets[place], key


def test_pages_of_a_file(tmp_path: Path) -> None:
    ids = [f"r{n}" for n in range(7)]
    offsets = write(tmp_path / "f", ids)
    for limit, most in ((1, 10**6), (3, 10**6), (7, 10**6), (100, 10**6), (100, 1), (100, 250)):
        after, found = None, []
        while True:
            rows, more = jsonl.read_page(tmp_path / "f", after, limit, most)
            found += rows
            if not more:
                break
            assert 0 < len(rows) <= limit
            after = rows[-1][0]
        assert [(at, row["id"]) for at, row in found] == list(zip(offsets, ids, strict=False))


@pytest.mark.parametrize("after", [1, 5, 10**9, 2**63 - 1])
def test_a_page_begins_behind_a_row(tmp_path: Path, after: int) -> None:
    write(tmp_path / "f", ["a", "b"])
    with pytest.raises(ValueError, match="no row begins at byte"):
        jsonl.read_page(tmp_path / "f", after, 1, 100)
