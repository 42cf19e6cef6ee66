"""Benchmarks' files that are nearly right: a BadRow with its row, or examples; no surprise."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from selftaught.benchmarks.base import BadRow, Example
from selftaught.benchmarks.catalogue import BENCHMARKS, load

NAMES = sorted({name for one in BENCHMARKS.values() for name in one.needs} | {"id", "subset"})
LEAVES = st.sampled_from([None, True, 0, 1, 2, 10**30, 1.5, "", "a", "A>B", "B", "model_a", "\0"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TEXTS = st.sampled_from(["a", "b", "A>B", "B>A", "model_a", "chat-hard", "1"])
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXTS})
RIGHT: dict[type, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(0, 5),
    float: st.floats(0, 5),
    list: st.lists(TEXTS | MESSAGE, max_size=4),
}


def value(kind: type | tuple[type, ...]) -> st.SearchStrategy[Any]:
    """Three times in four of the right type."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    right = st.one_of(*(RIGHT[one] for one in kinds))
    return st.integers(0, 3).flatmap(lambda chance: right if chance else VALUES)


ROWS = st.sampled_from(list(BENCHMARKS)).flatmap(
    lambda name: st.fixed_dictionaries(
        {field: value(kind) for field, kind in BENCHMARKS[name].needs.items()},
        optional={field: VALUES for field in NAMES if field not in BENCHMARKS[name].needs},
    )
)


def read(data: bytes, name: str | None) -> list[Example] | BadRow:
    try:
        return load(io.BytesIO(data), name)[1]
    except BadRow as error:
        return error


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=3), st.sampled_from([None, *BENCHMARKS]), st.booleans())
def test_rows_are_examples_or_bad(
    rows: list[dict[str, Any]], name: str | None, array: bool
) -> None:
    lines = [json.dumps(row) for row in rows]
    data = f"[{','.join(lines)}]" if array else "\n".join(lines)
    found = read(data.encode(), name)
    if isinstance(found, BadRow):
        assert 1 <= found.row <= len(rows) and found.message
    else:
        for one in found:
            assert Example.from_row(json.loads(json.dumps(one.to_row()))) == one


@given(st.binary(max_size=60), st.sampled_from([None, *BENCHMARKS]))
@example(b"[" * 100_000, None)
@example(b'{"a":' * 100_000, None)
@example(b"[" * 500 + b"]" * 500, None)
@example(b'{"prompt": NaN}', None)
@example(b'{"prompt": 1' + b"0" * 6000 + b"}", None)
@example(b"\x1f\x8b", None)
@example(b"PAR1" + b"\0" * 8 + b"PAR1", None)
def test_bytes_are_bad(data: bytes, name: str | None) -> None:
    assert isinstance(read(data, name), BadRow)
