"""The upload parser on files of all kinds: no surprise, errors that name lines, one truth."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selftaught import parquet_child
from services.api import plain
from services.api.records import LineError, Row
from services.api.uploads import MAX_ID_CHARS, one_by_one, parse
from tests.api.test_uploads import each

CAP = 120
KINDS = st.sampled_from(["instructions", "labelled", "pairs"])
COLUMNS = st.sampled_from([None, "instruction", "text", "id", "language"])

# Fields that decide something, and values that are nearly right.
NAMES = [
    "id",
    "instruction",
    "prompt",
    "text",
    "messages",
    "conversation",
    "conversations",
    "conversation_hash",
    "language",
    "reference",
    "toxic",
    "redacted",
    "chosen",
    "rejected",
    "subset",
    "response_a",
    "response_b",
    "other",
]
TEXTS = st.sampled_from(["a", "é", "", " ", "\0", "x\n", "\u2028", "x" * 60, "r2", "1", "true"])
LEAVES = TEXTS | st.sampled_from([None, True, 1, -3, 2**63, 10**25, 1.5, 1e308])
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "gpt", "tool"]), "content": LEAVES}
    ),
    max_size=3,
)
VALUES = LEAVES | MESSAGES | st.dictionaries(TEXTS, LEAVES, max_size=2)
RECORDS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
GOOD = st.builds(
    lambda text, name: {"instruction": f"say {text}", **({} if name is None else {"id": name})},
    st.integers(0, 99),
    st.none() | st.integers(0, 30) | st.sampled_from(["r2", "r3", "x", "y" * MAX_ID_CHARS]),
)
ODD = st.sampled_from(
    [
        b"",
        b"  ",
        b"\r",
        b"null",
        b"[1]",
        b"{",
        b'{"instruction": NaN}',
        b'{"instruction": 1e999}',
        b'{"instruction": ' + b"9" * 60 + b"}",
        b'{"instruction": "a", "instruction": "b"}',
        b'{"instruction": "\\ud800"}',
        b'{"instruction": "\xed\xa0\x80"}',
        b'{"instruction": "\xff"}',
        b'\xef\xbb\xbf{"instruction": "a"}',
        b'{"instruction": "a"} {"instruction": "b"}',
        b'{"instruction": "' + b"x" * CAP + b'"}',
        b'{"instruction": "a"}'.ljust(CAP) + b"\r",
        b"[" * CAP,
        b'{"a":' * 20,
    ]
)
LINES = (
    GOOD.map(lambda row: json.dumps(row).encode())
    | RECORDS.map(lambda row: json.dumps(row, ensure_ascii=False).encode())
    | ODD
    | st.binary(max_size=20)
)
FILES = st.lists(LINES, max_size=12).map(b"\n".join)


def run(data: bytes, form: Any, kind: Any, column: str | None) -> list[Row | LineError]:
    return list(each(parse(io.BytesIO(data), form, kind, column, CAP, 10**9)))


@given(FILES, COLUMNS, st.integers(1, 200))
@example(b'{"instruction":"a"}\n' * 3 + b"\n\n\n" + b'{"instruction":"b"}', None, 30)
@example(b"\n".join([b'{"id":1,"instruction":"a"}'] * 3), None, 200)
@example(b'{"instruction":"\\u0000"}', None, 200)
@example(b'{"instruction":"a","language":3}', None, 200)
@example(b'{"instruction":"' + b"x" * CAP + b'"}', None, 200)
@example(b'{"prompt":"a","instruction":null}', None, 200)
def test_blocks_of_plain_rows_change_nothing(data: bytes, column: str | None, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "_BLOCK", size)
        found = run(data, "jsonl", "instructions", column)
    careful = one_by_one(io.BytesIO(data), "jsonl", "instructions", column, CAP, 10**9)
    assert found == list(careful)


@given(FILES | st.binary(max_size=200), st.sampled_from(["jsonl", "csv", "lines"]), KINDS, COLUMNS)
@example(b'instruction\n"a\n', "csv", "instructions", None)
@example(b"PAR1" + b"\0" * 20 + b"PAR1", "jsonl", "instructions", None)
def test_any_file_gives_rows_and_errors_of_its_lines(
    data: bytes, form: str, kind: str, column: str | None
) -> None:
    found = run(data, form, kind, column)
    lines = [item.line for item in found]
    assert lines == sorted(lines)
    assert all(1 <= line <= data.count(b"\n") + 1 for line in lines)
    rows = [item for item in found if isinstance(item, Row)]
    assert len({row.line for row in rows}) == len(rows)
    assert len({row.data["id"] for row in rows}) == len(rows)
    bad = {item.line for item in found if isinstance(item, LineError)}
    assert not bad & {row.line for row in rows}
    for row in rows:
        assert row.data["instruction"].strip() and "\0" not in row.data["instruction"]


@given(st.lists(RECORDS | GOOD, max_size=8), KINDS)
def test_accepted_rows_are_accepted_again_and_stay_the_same(
    records: list[dict[str, Any]], kind: str
) -> None:
    data = "\n".join(json.dumps(one) for one in records).encode()
    rows = [item.data for item in run(data, "jsonl", kind, None) if isinstance(item, Row)]
    if kind == "pairs":  # keeps the conversation under another name
        rows = [{key: row[key] for key in row if key != "context"} for row in rows]
    again = "\n".join(json.dumps(row) for row in rows).encode()
    cap = 10 * CAP
    found = list(each(parse(io.BytesIO(again), "jsonl", kind, None, cap, cap)))  # type: ignore[arg-type]
    assert (
        [item.data for item in found if isinstance(item, Row)]
        == rows
        == [item.data for item in found if not isinstance(item, LineError)]
    )


def parquet_files() -> Iterator[bytes]:
    for table in (
        pa.table({"instruction": ["a", "b"] * 40, "id": list(range(80))}),
        pa.table({"messages": [[{"role": "user", "content": "q"}]] * 9}),
    ):
        out = io.BytesIO()
        pq.write_table(table, out)
        yield out.getvalue()


PARQUET = list(parquet_files())


@given(
    st.sampled_from(PARQUET),
    st.lists(st.tuples(st.integers(4, 2000), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_parquet_file_is_one_of_the_errors_that_its_reader_tells(
    data: bytes, damage: list[tuple[int, int]]
) -> None:
    wrong = bytearray(data)
    for place, value in damage:
        wrong[place % (len(data) - 4)] = value
    wrong[:4] = b"PAR1"
    try:
        for row in parquet_child.rows(io.BytesIO(bytes(wrong))):
            parquet_child.line(row, CAP)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        assert str(error)
