"""Stable hashes: the same parts give the same number on every machine, in every process."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_sha256(value: Any) -> str:
    """sha256 (hex) of a JSON value written in one way only: sorted keys, no blanks, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def stable_seed(*parts: str | int) -> int:
    """A seed in [0, 2**31) from parts, e.g. (job seed, iteration, pair id, order).

    31 bits, because that is what every OpenAI-compatible server accepts as `seed`.
    """
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
