"""Decides which uploaded instructions may be used, says why not for the others, and shuffles.

Streams: memory holds a digest and a position for each row, never the texts.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selftaught import jsonl
from selftaught.contracts import SelectSettings
from selftaught.hashing import stable_seed


def select(
    source: Path,
    settings: SelectSettings,
    seed: int,
    keep: Callable[[jsonl.Row], None],
    drop: Callable[[jsonl.Row], None],
) -> dict[str, int]:
    """Read rows `{instruction, id?}` of a JSONL file; hand each to `keep` or to `drop`.

    `drop` gets `{row, id, reason}` in file order: `row` is the row's number from 1, `reason` one of
    empty, too_short, too_long (characters, stripped), duplicate (equal but for case and white
    space) and duplicate_id (another text has this id already). Then `keep` gets `{id, instruction}`
    in an order that is a function of (seed, id) alone, so that other rows do not change it. A row
    without an id gets one from its text.

    Returns counts: rows, kept, and dropped_<reason> for each reason that occurred.
    """
    counts: Counter[str] = Counter()
    order = array("q")
    offsets = array("q")
    texts: set[bytes] = set()
    ids: set[bytes] = set()
    for number, (offset, row) in enumerate(jsonl.read_with_offsets(source), 1):
        name, key = _id(row), _text_digest(row["instruction"])
        reason = _reason(row["instruction"], settings)
        if reason is None and key in texts:
            reason = "duplicate"
        if reason is None and _digest(name) in ids:
            reason = "duplicate_id"
        counts["rows"] += 1
        if reason is not None:
            counts[f"dropped_{reason}"] += 1
            drop({"row": number, "id": name, "reason": reason})
            continue
        texts.add(key)
        ids.add(_digest(name))
        order.append(stable_seed(seed, "select", name))
        offsets.append(offset)
    with jsonl.Shelf([source]) as shelf:
        for index in sorted(range(len(order)), key=lambda i: (order[i], offsets[i])):
            row = shelf.fetch((0, offsets[index]))
            keep({"id": _id(row), "instruction": row["instruction"].strip()})
    counts["kept"] = len(order)
    return dict(counts)


def normalise(text: str) -> str:
    """What counts as the same text: case and white space make no difference."""
    return " ".join(text.split()).casefold()


def _reason(instruction: str, settings: SelectSettings) -> str | None:
    length = len(instruction.strip())
    if not length:
        return "empty"
    if length < settings.min_chars:
        return "too_short"
    return "too_long" if length > settings.max_chars else None


def _id(row: dict[str, Any]) -> str:
    given = row.get("id")
    return str(given) if given not in (None, "") else f"i-{_text_digest(row['instruction']).hex()}"


def _text_digest(text: str) -> bytes:
    return _digest(normalise(text))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
