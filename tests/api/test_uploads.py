"""The parser alone: formats, line numbers, limits."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.api.records import LineError, Row, Rows
from services.api.uploads import parse


def run(
    text: str | bytes,
    form: Any = "jsonl",
    kind: Any = "instructions",
    column: str | None = None,
    cap: int = 1000,
) -> tuple[list[Row], list[LineError]]:
    data = text.encode() if isinstance(text, str) else text
    items = list(each(parse(io.BytesIO(data), form, kind, column, cap, 10**9)))
    return (
        [item for item in items if isinstance(item, Row)],
        [item for item in items if isinstance(item, LineError)],
    )


def each(items: Iterable[Row | Rows | LineError]) -> Iterator[Row | LineError]:
    """Blocks as the rows that they hold."""
    for item in items:
        if isinstance(item, Rows):
            yield from (Row(line, data) for line, data in enumerate(item.data, item.line))
        else:
            yield item


def rows(*args: Any, **kwargs: Any) -> list[dict[str, str]]:
    good, bad = run(*args, **kwargs)
    assert not bad
    return [row.data for row in good]


def errors(*args: Any, **kwargs: Any) -> list[tuple[int, str | None, str]]:
    return [(e.line, e.field, e.message) for e in run(*args, **kwargs)[1]]


def test_jsonl_defaults_ids_to_lines_and_keeps_given_ones() -> None:
    text = '{"instruction":"a"}\r\n\n  \n{"prompt":"b","id":7}\n{"id":"x","instruction":" c\\n"}'
    assert rows(text) == [
        {"id": "r1", "instruction": "a"},
        {"id": "7", "instruction": "b"},
        {"id": "x", "instruction": " c\n"},
    ]


def test_only_newlines_end_lines() -> None:
    assert rows("a\u2028b\x0bc\rd\r\n", "lines") == [
        {"id": "r1", "instruction": "a\u2028b\x0bc\rd"}
    ]


def test_a_byte_order_mark_is_no_text() -> None:
    assert rows(b"\xef\xbb\xbfinstruction\nhi\n", "csv") == [{"id": "r2", "instruction": "hi"}]
    assert rows(b"\xef\xbb\xbfhi", "lines")[0]["instruction"] == "hi"


def test_csv_lines_are_where_rows_start() -> None:
    text = 'instruction,note\n"two\r\nlines",x\n\n"said ""hi""",y\n,z\nlast,\n'
    good, bad = run(text, "csv")
    assert [(row.line, row.data["instruction"]) for row in good] == [
        (2, "two\nlines"),
        (5, 'said "hi"'),
        (7, "last"),
    ]
    assert bad == [LineError(6, "instruction", "empty")]


def test_csv_row_with_too_few_cells() -> None:
    assert errors("a,text\n1,x\n2\n", "csv", column="text") == [
        (3, None, "1 cells under 2 columns")
    ]


def test_csv_commas_that_were_not_quoted() -> None:
    assert errors("instruction\nwhat is 1,000?\n", "csv") == [
        (2, None, "2 cells under 1 columns; quote cells with commas")
    ]


@pytest.mark.parametrize(
    ("text", "kind", "column", "field"),
    [
        ("a,b\n1,2\n", "instructions", None, "instruction"),
        ("instruction\n1\n", "instructions", "text", "text"),
        ("instruction,chosen\n1,2\n", "labelled", None, "rejected"),
        ("instruction,instruction\n1,2\n", "instructions", None, None),
    ],
)
def test_csv_header_is_checked_once(text: str, kind: str, column: str | None, field: str) -> None:
    assert [e[:2] for e in errors(text, "csv", kind, column)] == [(1, field)]


def test_csv_open_quote_does_not_eat_memory() -> None:
    text = 'instruction\nok\n"open\n' + "x\n" * 5000
    found = errors(text, "csv", cap=100)
    assert found[0][:2] == (3, None) and "quote" in found[0][2] and len(found) == 1


def test_csv_goes_on_after_a_bad_line() -> None:
    good, bad = run(b'instruction\n"a"b\n\xff\nfine\n', "csv")
    assert [e.line for e in bad] == [2, 3] and [row.line for row in good] == [4]


def test_labelled_rows() -> None:
    line = '{"prompt":"i","chosen":"a","rejected":"b","subset":"Chat","x":[1]}\n'
    assert rows(line, kind="labelled") == [
        {"id": "r1", "instruction": "i", "chosen": "a", "rejected": "b", "subset": "Chat"}
    ]
    same = '{"prompt":"i","chosen":"a","rejected":"a","subset":3}\n{"prompt":"i"}\n'
    assert [e[:2] for e in errors(same, kind="labelled")] == [
        (1, "rejected"),
        (1, "subset"),
        (2, "chosen"),
        (2, "rejected"),
    ]


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (b"{", None, "not JSON"),
        (b"[1]", None, "not a JSON object"),
        (b"{}", "instruction", "missing"),
        (b'{"instruction":3}', "instruction", "not a string"),
        (b'{"instruction":" "}', "instruction", "empty"),
        (b'{"instruction":"a\\u0000b"}', "instruction", "NUL"),
        (b'{"instruction":"\\ud800"}', None, "not JSON"),
        (b'{"instruction":"a","id":true}', "id", "not a string"),
        (b'{"instruction":"a","id":"r2"}', "id", "already the id of line 2"),
        (b'{"instruction":"\xe9"}', None, "not valid UTF-8 (byte 17)"),
        (b'{"instruction":"' + b"x" * 2000 + b'"}', None, "longer than 1000 bytes"),
        (b"[" * 900, None, "not JSON"),
    ],
)
def test_bad_jsonl_line(line: bytes, field: str | None, message: str) -> None:
    good, bad = run(b'{"instruction":"1"}\n{"instruction":"2"}\n' + line + b'\n{"prompt":"4"}')
    assert [(e.line, e.field) for e in bad] == [(3, field)]
    assert message in bad[0].message
    assert [row.line for row in good] == [1, 2, 4]


def test_pairs_have_an_instruction_or_a_conversation_that_ends_with_one() -> None:
    text = (
        '{"prompt": "p", "response_a": "a", "response_b": "b", "chosen": "a"}\n'
        '{"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, '
        '{"role": "user", "content": "3"}], "response_a": "a", "response_b": "b"}'
    )
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    assert rows(text, kind="pairs") == [
        {"id": "r1", "instruction": "p", "response_a": "a", "response_b": "b"},
        {"id": "r2", "instruction": "3", "context": turns, "response_a": "a", "response_b": "b"},
    ]
    (row,) = rows("prompt,response_a,response_b\np,a,b\n", form="csv", kind="pairs")
    assert (row["instruction"], row["response_a"], row["response_b"]) == ("p", "a", "b")


@pytest.mark.parametrize(
    ("text", "form", "wrong"),
    [
        ('{"prompt": "p", "response_a": "a"}', "jsonl", [(1, "response_b", "missing")]),
        (
            '{"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]'
            ', "response_a": "a"}',
            "jsonl",
            [
                (1, "messages", "the last message is not the user's"),
                (1, "response_b", "missing"),
            ],
        ),
        ('{"messages": "m", "response_a": "a", "response_b": "b"}', "jsonl",
         [(1, "messages", "not a list of messages")]),
        ("prompt,response_a\np,a\n", "csv",
         [(1, "response_b", "no such column; there are: prompt, response_a")]),
    ],
)  # fmt: skip
def test_bad_pairs(text: str, form: str, wrong: list[Any]) -> None:
    assert errors(text, form=form, kind="pairs") == wrong


def test_an_id_given_first_collides_with_a_later_default() -> None:
    assert errors('{"instruction":"a","id":"r2"}\n{"instruction":"b"}\n') == [
        (2, "id", "'r2' is already the id of line 1")
    ]


def test_row_cap_counts_the_line_without_its_end() -> None:
    assert len(rows(b"x" * 1000 + b"\r\n" + b"y" * 1000, "lines")) == 2
    assert len(rows(b"\xef\xbb\xbf" + b"x" * 1000 + b"\r\n", "lines")) == 1


def test_a_conversation_is_kept_whole_and_its_first_user_turn_is_the_instruction() -> None:
    wildchat = {
        "conversation_hash": "h",
        "model": "gpt",
        "conversation": [
            {"role": "user", "content": "hi", "language": "English", "toxic": False, "ip": 1},
            {"role": "assistant", "content": "yes?", "toxic": True, "redacted": False},
            {"role": "user", "content": "tell me"},
        ],
        "turn": 2,
        "language": "English",
        "openai_moderation": [],
    }
    again = orjson.dumps(wildchat).decode()
    first, second = rows(f"{again}\n{again}\n")
    messages = [{"role": m["role"], "content": m["content"]} for m in wildchat["conversation"]]  # type: ignore[attr-defined]
    assert first == {
        "id": "h",
        "instruction": "hi",
        "messages": messages,
        "language": "English",
        "toxic": True,
        "redacted": False,
    }
    assert second["id"] == "h.2", "the same conversation may have been had twice"
    row_level = orjson.dumps({**wildchat, "toxic": False}).decode()
    assert rows(row_level)[0]["toxic"] is False, "the row's own mark counts first"


@pytest.mark.parametrize(
    "line",
    [
        '{"messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}]}',
        '{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"q"}]}',
    ],
)
def test_chat_messages_of_two_schools(line: str) -> None:
    (row,) = rows(line)
    assert row["instruction"] == "q"
    assert [m["role"] for m in row["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("3", "not a list of messages"),
        ("[]", "not a list of messages"),
        ("[1]", "message 1 is not an object"),
        ('[{"role":"user","content":"a"},{"role":"tool","content":"b"}]', "message 2 has no known"),
        ('[{"role":"user","content":null}]', "message 1 has no text"),
        ('[{"role":"assistant","content":"a"}]', "the first user message is missing"),
        ('[{"role":"user","content":" "}]', "the first user message is missing"),
    ],
)
def test_a_bad_conversation_says_which_message(messages: str, message: str) -> None:
    ((line, field, said),) = errors(f'{{"messages":{messages}}}')
    assert (line, field) == (1, "messages") and message in said


def test_optional_fields_are_checked() -> None:
    good = '{"prompt":"p","reference":"42","language":null,"toxic":false,"redacted":"TRUE"}'
    expected = {"id": "r1", "instruction": "p", "reference": "42", "toxic": False, "redacted": True}
    assert rows(good) == [expected]
    bad = '{"prompt":"p","reference":42,"language":[],"toxic":"perhaps"}'
    assert [field for _, field, _ in errors(bad)] == ["language", "reference", "toxic"]


def test_a_named_column_is_preferred_to_a_conversation() -> None:
    line = '{"text":"t","messages":[{"role":"user","content":"q"}]}'
    assert rows(line, column="text") == [{"id": "r1", "instruction": "t"}]


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_parquet_rows_are_numbered_and_may_nest() -> None:
    data = parquet(
        conversation=[[{"role": "user", "content": f"q{i}"}] for i in range(600)],
        language=["English", None] * 300,
        created=[datetime.datetime(2024, 1, 1)] * 600,
    )
    found = rows(data, "parquet")
    assert len(found) == 600 and found[599]["id"] == "r600"
    assert found[1] == {
        "id": "r2",
        "instruction": "q1",
        "messages": [{"role": "user", "content": "q1"}],
    }
    assert rows(data, "jsonl") == found, "the file's own magic counts, whatever it is called"


def test_a_bad_parquet_row_is_named() -> None:
    data = parquet(prompt=["a", None, "b", "x" * 2000, " "])
    assert errors(data, "parquet") == [
        (2, "instruction", "missing"),
        (4, None, "longer than 1000 bytes"),
        (5, "prompt", "empty"),
    ]
    assert errors(parquet(prompt=[1]), "parquet") == [(1, "prompt", "not a string")]
