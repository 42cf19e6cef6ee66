"""Decides which uploaded instructions may be used, says why not for the others, and shuffles.

Streams: memory holds two digests, a position and a length for each row (about 80 bytes), never the
texts; with near-duplicate removal also the LSH entries of each kept row (about 5 KiB).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH

from selftaught import jsonl
from selftaught.contracts import SelectSettings
from selftaught.hashing import stable_seed
from services.generator.pii import has_pii

SHINGLE = 3
"""Words in a shingle of the near-duplicate measure."""

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


def select(
    source: Path,
    settings: SelectSettings,
    seed: int,
    keep: Callable[[jsonl.Row], None],
    drop: Callable[[jsonl.Row], None],
) -> tuple[dict[str, int], dict[str, Any]]:
    """Read rows of a JSONL file; hand each to `keep` or to `drop`; returns counts and a report.

    Rows: `{instruction, id?, messages?, language?, toxic?, redacted?, reference?}`. `drop` gets
    `{row, id, reason}` in file order: `row` is the row's number from 1, `reason` the first that
    applies of empty, too_short, too_long (characters, stripped), no_language, language (not asked
    for), toxic, redacted, duplicate (equal but for case and white space), duplicate_id (another
    text has this id already), pii and near_duplicate. Then `keep` gets `{id, instruction, context?,
    language?, reference?}` in an order that is a function of (seed, id) alone, so that other rows
    do not change it. A row without an id gets one from its text. Texts are compared with their
    context: two conversations may end in the same words.

    Counts: rows, kept, and dropped_<reason> for each reason that occurred. Report: the same as
    rows, kept, dropped {reason: rows}; chars {quantile: characters} of the kept instructions (None
    if there are none); languages {language, or unknown: kept rows}, most frequent first.
    """
    counts: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    order, offsets, lengths = array("q"), array("q"), array("q")
    texts, ids = Digests(), Digests()
    with jsonl.Shelf([source]) as shelf:
        near = _NearDuplicates(shelf, settings) if settings.near_duplicates < 1 else None
        for number, (offset, row) in enumerate(jsonl.read_with_offsets(source), 1):
            turn = _turn(row, settings)
            whole = _whole(turn)
            name, key = _id(row, whole), _text_digest(whole)
            reason = _reason(row, turn["instruction"], whole, settings)
            if reason is None and key in texts:
                reason = "duplicate"
            if reason is None and _digest(name) in ids:
                reason = "duplicate_id"
            if reason is None and settings.drop_pii and has_pii(whole):
                reason = "pii"
            if reason is None and near is not None and near.seen(whole, offset):
                reason = "near_duplicate"
            counts["rows"] += 1
            if reason is not None:
                counts[f"dropped_{reason}"] += 1
                drop({"row": number, "id": name, "reason": reason})
                continue
            texts.add(key)
            ids.add(_digest(name))
            languages[row.get("language") or "unknown"] += 1
            order.append(stable_seed(seed, "select", name))
            offsets.append(offset)
            lengths.append(len(turn["instruction"]))
        for index in np.lexsort((offsets, order)):  # by order, then by offset
            row = shelf.fetch((0, offsets[index]))
            turn = _turn(row, settings)
            told = {key: row[key] for key in ("language", "reference") if row.get(key) is not None}
            keep({"id": _id(row, _whole(turn)), **turn, **told})
    counts["kept"] = len(order)
    report = {
        "rows": counts["rows"],
        "kept": counts["kept"],
        "dropped": {
            key.removeprefix("dropped_"): count
            for key, count in sorted(counts.items())
            if key.startswith("dropped_")
        },
        "chars": _quantiles(lengths),
        "languages": dict(languages.most_common()),
    }
    return dict(counts), report


def normalise(text: str) -> str:
    """What counts as the same text: case and white space make no difference."""
    return " ".join(text.split()).casefold()


def _turn(row: jsonl.Row, settings: SelectSettings) -> jsonl.Row:
    """{instruction, context?}: the turn that the settings ask for; only a last one has context."""
    messages = row.get("messages") or []
    users = [place for place, message in enumerate(messages) if message["role"] == "user"]
    if settings.turn == "first" or not users:
        return {"instruction": row["instruction"].strip()}
    before = [{"role": m["role"], "content": m["content"]} for m in messages[: users[-1]]]
    turn = {"instruction": messages[users[-1]]["content"].strip()}
    return {**turn, "context": before} if before else turn


def _whole(turn: jsonl.Row) -> str:
    return "\n".join([*(m["content"] for m in turn.get("context", [])), turn["instruction"]])


def _reason(row: jsonl.Row, instruction: str, whole: str, settings: SelectSettings) -> str | None:
    """Why the row, looked at by itself, may not be used."""
    if not instruction:
        return "empty"
    if len(instruction) < settings.min_chars:
        return "too_short"
    if len(whole) > settings.max_chars:
        return "too_long"
    if settings.languages is not None:
        language = row.get("language")
        if not language:
            return "no_language"
        if language.casefold() not in {name.casefold() for name in settings.languages}:
            return "language"
    if settings.drop_toxic and row.get("toxic"):
        return "toxic"
    return "redacted" if settings.drop_redacted and row.get("redacted") else None


class _NearDuplicates:
    """MinHash LSH proposes earlier rows that may be alike; their exact similarity decides.

    Source: Broder 1997, "On the resemblance and containment of documents". The hash functions are
    fixed, so that the same file gives the same rows.
    """

    def __init__(self, shelf: jsonl.Shelf, settings: SelectSettings) -> None:
        self._shelf, self._settings = shelf, settings
        # The exact check undoes false alarms, so the bands are chosen to miss few (< 4 %).
        self._lsh = MinHashLSH(threshold=settings.near_duplicates, weights=(0.02, 0.98))

    def seen(self, text: str, offset: int) -> bool:
        """Whether an earlier row is alike; if not, the row at `offset` counts as earlier now."""
        words = _shingles(text)
        signature = MinHash(seed=1)
        signature.update_batch([shingle.encode() for shingle in words])
        for earlier in self._lsh.query(signature):
            turn = _turn(self._shelf.fetch((0, earlier)), self._settings)
            other = _shingles(_whole(turn))
            if len(words & other) >= self._settings.near_duplicates * len(words | other):
                return True
        self._lsh.insert(offset, signature, check_duplication=False)
        return False


def _shingles(text: str) -> set[str]:
    """Runs of SHINGLE words; of a shorter text the text."""
    words = normalise(text).split(" ")
    last = max(1, len(words) - SHINGLE + 1)
    return {" ".join(words[start : start + SHINGLE]) for start in range(last)}


def _quantiles(lengths: Sequence[int]) -> dict[str, int] | None:
    """Values of the sorted lengths at the QUANTILES (the nearest rank below)."""
    if not lengths:
        return None
    ranked = np.sort(lengths)
    return {name: int(ranked[int(share * (len(ranked) - 1))]) for name, share in QUANTILES.items()}


class Digests:
    """A set of 64-bit numbers that are as good as random, in 16 to 32 bytes each.

    A hash table with linear probing, at most half full; Python's own takes six times as much.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))  # 0 is an empty place
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: int) -> bool:
        return self._table[self._place(digest or 1)] != 0

    def add(self, digest: int) -> None:
        """Add it, if it is not there yet."""
        place = self._place(digest or 1)
        if self._table[place]:
            return
        self._table[place] = digest or 1
        self._count += 1
        if 2 * self._count > len(self._table):
            old = self._table
            self._table = array("Q", bytes(16 * len(old)))
            for one in filter(None, old):
                self._table[self._place(one)] = one

    def _place(self, digest: int) -> int:
        """Where it is, or would be."""
        table, last = self._table, len(self._table) - 1
        place = digest & last
        while (found := table[place]) and found != digest:
            place = (place + 1) & last
        return place


def _id(row: jsonl.Row, whole: str) -> str:
    given = row.get("id")
    return str(given) if given not in (None, "") else f"i-{_text_digest(whole):016x}"


def _text_digest(text: str) -> int:
    return _digest(normalise(text))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
