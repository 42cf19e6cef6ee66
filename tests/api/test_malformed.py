"""A malformed file of each kind: one clear error with line and field, and nothing left behind."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from selftaught.settings import get_settings
from tests.api.conftest import assert_problem
from tests.api.test_datasets import assert_nothing_left, send_chunked, stored

GOOD = [json.dumps({"instruction": f"say {i}"}) for i in range(10)]
JSONL = ("\n".join(GOOD) + "\n").encode()


def line_seven(text: bytes) -> bytes:
    lines = [line.encode() for line in GOOD]
    lines[6] = text
    return b"\n".join(lines)


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"instruction": [f"say {i}" for i in range(1000)]}), out)
    return out.getvalue()


def garbled() -> bytes:
    """Right at both ends, nonsense between."""
    data = bytearray(parquet())
    data[4:-8] = b"\xff" * (len(data) - 12)
    return bytes(data)


MALFORMED: dict[str, tuple[str, bytes, int, str | None, str]] = {
    "broken JSON": ("d.jsonl", line_seven(b'{"instruction": "a'), 7, None, "not JSON"),
    "missing column": ("d.jsonl", line_seven(b'{"id": 1}'), 7, "instruction", "missing"),
    "wrong type": (
        "d.jsonl",
        line_seven(b'{"instruction": [1]}'),
        7,
        "instruction",
        "not a string",
    ),
    "invalid UTF-8": (
        "d.jsonl",
        line_seven(b'{"instruction": "\xff"}'),
        7,
        None,
        "not valid UTF-8",
    ),
    "missing CSV column": ("d.csv", b"a,b\n1,2\n", 1, "instruction", "no such column"),
    "CSV with a long row": ("d.csv", b"prompt,n\na,1\nb,2,3\n", 3, None, "3 cells under 2"),
    "CSV with a short row": ("d.csv", b"prompt,n\na,1\nb\n", 3, None, "1 cells under 2"),
    "no Parquet": ("d.parquet", JSONL, 1, None, "not a readable Parquet file"),
    "half a Parquet": ("d.parquet", parquet()[:-200], 1, None, "not a readable Parquet file"),
    "garbled Parquet": ("d.parquet", garbled(), 1, None, "not a readable Parquet file"),
    "half a gzip": (
        "d.jsonl.gz",
        gzip.compress(JSONL, mtime=0)[:-10],
        1,
        None,
        "not a whole gzip file",
    ),
    "no gzip": ("d.jsonl.gz", b"\x1f\x8b" + JSONL, 1, None, "not a whole gzip file"),
}


@pytest.mark.parametrize("kind", list(MALFORMED))
def test_one_clear_error(client: TestClient, kind: str) -> None:
    name, content, line, field, message = MALFORMED[kind]
    answer = client.post("/v1/datasets", files={"file": (name, content)})
    body = assert_problem(answer, 422, "invalid_dataset")
    ((said,)) = [body["errors"]]
    assert [(e["line"], e["field"]) for e in said] == [(line, field)]
    assert message in said[0]["message"]
    assert_nothing_left()


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.txt", "d.jsonl.gz"])
def test_an_empty_file(client: TestClient, name: str) -> None:
    content = gzip.compress(b"", mtime=0) if name.endswith(".gz") else b""
    body = assert_problem(
        client.post("/v1/datasets", files={"file": (name, content)}), 422, "invalid_dataset"
    )
    assert "no rows" in body["detail"]
    assert_nothing_left()


def test_an_empty_parquet_file(client: TestClient) -> None:
    answer = client.post("/v1/datasets", files={"file": ("d.parquet", b"")})
    assert_problem(answer, 422, "invalid_dataset")
    assert_nothing_left()


def test_a_line_of_fifty_megabytes_is_never_held(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        yield JSONL + b'{"instruction": "'
        for _ in range(50):
            yield b"x" * 1_000_000
        yield b'"}\n'

    tracemalloc.start()
    status, body, _ = send_chunked(client, "application/x-ndjson", pieces())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (status, body["code"]) == (422, "invalid_dataset")
    assert [(e["line"], e["field"]) for e in body["errors"]] == [(11, None)]
    assert "longer than 1048576 bytes" in body["errors"][0]["message"]
    assert peak < 10_000_000
    assert_nothing_left()


def test_a_gzip_bomb_is_stopped_at_the_limit(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "max_upload_bytes", 5_000_000)
    bomb = gzip.compress(b"word\n" * 40_000_000, mtime=0)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    answer = client.post("/v1/datasets", files={"file": ("d.txt.gz", bomb)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_problem(answer, 413, "unpacked_too_large", "file")
    assert peak < 10_000_000
    assert_nothing_left()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl.gz", gzip.compress(JSONL, mtime=0)),
        ("d.jsonl", gzip.compress(JSONL, mtime=0)),
        ("d.parquet", parquet()),
        ("d.parquet.gz", gzip.compress(parquet(), mtime=0)),
    ],
)
def test_good_files_of_the_same_kinds_are_read(
    client: TestClient, name: str, content: bytes
) -> None:
    answer = client.post("/v1/datasets", files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    rows: list[dict[str, Any]] = stored(answer.json()["id"])
    assert rows[3] == {"id": "r4", "instruction": "say 3"}
