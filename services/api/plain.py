"""Rows of instructions as most large files have them, a block of lines at a time.

A plain row is a JSON object with an instruction, maybe an id, and no other field that a dataset
keeps. What is not obviously plain, or wrong in any way, is left to uploads.py, which is slower and
says what is wrong where: this module only ever says yes to what that one says yes to, too, and then
makes the same rows of it (a property test compares them).
"""

from __future__ import annotations

from typing import Any, BinaryIO

import orjson

from services.api.records import Seen

MAX_ID_CHARS = 200
_BLOCK = 1 << 16  # what fits the caches: larger ones are slower
_CLOSER = frozenset(
    ("conversation_hash", "language", "reference", "toxic", "redacted")
)  # fields that decide more than the instruction


def read_block(file: BinaryIO, max_row_bytes: int) -> bytes:
    """The next lines, about 64 KiB; the last may be cut if it is too long."""
    block = file.read(_BLOCK)
    if block and not block.endswith(b"\n"):
        block += file.readline(max_row_bytes + 5)
    return block


def plain_rows(
    block: bytes, first: int, column: str | None, max_row_bytes: int, seen: Seen
) -> list[dict[str, Any]] | None:
    """Rows {id, instruction} of the lines of a block, if all are plain and their ids are new.

    `first`: number of the first line. None otherwise; ids may then be claimed already, for the
    lines that they stand in.
    """
    lines = block.removesuffix(b"\n").split(b"\n")
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for number, line in enumerate(lines, first):
        if len(line) > max_row_bytes:
            return None
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        if type(record) is not dict or not _CLOSER.isdisjoint(record):
            return None
        field = column or ("instruction" if "instruction" in record else "prompt")
        text, name = record.get(field), record.get("id")
        if type(text) is not str or not text or text.isspace() or "\0" in text:
            return None
        if name is None:
            name = f"r{number}"
        elif type(name) is int:
            name = str(name)
        elif type(name) is not str or not name or name.isspace() or "\0" in name:
            return None
        if len(name) > MAX_ID_CHARS:
            return None
        names.append(name)
        rows.append({"id": name, "instruction": text})
    return rows if seen.claim_all(names, first) else None
