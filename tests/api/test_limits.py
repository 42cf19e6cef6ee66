"""Uploads that ask for too much: each is stopped, with an error of its own, and nothing is kept."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from selftaught import artifacts, parquet
from selftaught.settings import get_settings
from services.api import bodies, records
from tests.api.conftest import assert_problem
from tests.api.test_datasets import assert_nothing_left

FORM = {"content-type": "multipart/form-data; boundary=xx"}
JSONL = {"content-type": "application/x-ndjson"}


def parquet_file(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def part(head: str, content: str = "a\n") -> str:
    return f"--xx\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n"


@pytest.mark.parametrize("media", ["application/x-ndjson", "text/plain"])
def test_more_rows_than_an_upload_may_have(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, media: str
) -> None:
    monkeypatch.setattr(get_settings(), "max_upload_rows", 5)
    row = b'{"instruction":"a"}\n'
    headers = {"content-type": media}
    answer = client.post("/v1/datasets", content=row * 6, headers=headers)
    assert_problem(answer, 413, "too_many_rows", "file")
    assert_nothing_left()
    assert client.post("/v1/datasets", content=row * 5, headers=headers).status_code == 201


@pytest.mark.parametrize(
    ("media", "line"),
    [
        ("application/x-ndjson", b"1\n"),
        ("application/x-ndjson", b"\n"),
        ("text/plain", b" \n"),
        ("text/csv", b"a,b\n"),
        ("text/csv", b"\n"),
    ],
)
def test_no_more_errors_than_are_worth_counting(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, media: str, line: bytes
) -> None:
    """A megabyte of gzip is a gigabyte of bad lines, which would take an hour."""
    monkeypatch.setattr(bodies, "MAX_BAD", 7)
    monkeypatch.setattr(records, "MAX_BLANK", 3)
    head = b"instruction\n" if media == "text/csv" else b""
    answer = client.post("/v1/datasets", content=head + line * 100, headers={"content-type": media})
    found = assert_problem(answer, 422, "invalid_dataset")
    assert found["detail"].startswith("7 errors or more, the first in line ")
    assert len(found["errors"]) == 7
    assert_nothing_left()


def test_a_dictionary_with_one_long_text(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = parquet_file(pa.table({"instruction": ["x" * 200_000] * 200}), compression="zstd")
    assert len(bomb) < 1000
    monkeypatch.setattr(get_settings(), "max_upload_bytes", 5_000_000)
    answer = client.post("/v1/datasets", files={"file": ("d.parquet", bomb)})
    assert_problem(answer, 413, "unpacked_too_large", "file")
    monkeypatch.setattr(get_settings(), "max_row_bytes", 1000)
    answer = client.post("/v1/datasets", files={"file": ("d.parquet", bomb)})
    body = assert_problem(answer, 422, "invalid_dataset")
    assert body["errors"][0] == {"line": 1, "field": None, "message": "longer than 1000 bytes"}
    assert_nothing_left()


def test_a_page_that_needs_more_memory_than_there_is(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pa.table({"instruction": ["x" * 1_000_000] * 100})  # one page of 100 MB
    bomb = parquet_file(rows, compression="zstd", use_dictionary=False)
    assert len(bomb) < 20_000
    monkeypatch.setattr(parquet, "MEMORY", 150_000_000)
    small = parquet_file(rows.slice(0, 10), compression="zstd", use_dictionary=False)
    answer = client.post("/v1/datasets", files={"file": ("d.parquet", small)})
    assert answer.status_code == 201, answer.text
    answer = client.post("/v1/datasets", files={"file": ("d.parquet", bomb)})
    body = assert_problem(answer, 422, "invalid_dataset")
    assert "memory" in body["errors"][0]["message"]


def test_parquet_that_is_nested_deep_is_refused(client: TestClient) -> None:
    kind = pa.string()
    for _ in range(150):
        kind = pa.list_(kind)
    data = parquet_file(pa.table({"instruction": pa.array([None], type=kind)}))
    answer = client.post("/v1/datasets", files={"file": ("d.parquet", data)})
    body = assert_problem(answer, 422, "invalid_dataset")
    assert "not a readable Parquet file" in body["errors"][0]["message"]


def test_a_benchmark_in_parquet_has_a_limit_too(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selftaught.benchmarks.catalogue.MAX_BYTES", 1_000_000)
    many = pa.table({"prompt": ["x" * 100_000] * 50, "chosen": ["a"] * 50, "rejected": ["b"] * 50})
    answer = client.post(
        "/v1/datasets",
        files={"file": ("d.parquet", parquet_file(many))},
        data={"kind": "benchmark"},
    )
    body = assert_problem(answer, 422, "invalid_dataset")
    assert "more than 1000000 bytes" in body["detail"]
    assert_nothing_left()


def test_gzip_of_many_members(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_MEMBERS", 100)
    member = gzip.compress(b"word\n")

    def post(body: bytes) -> Any:
        return client.post("/v1/datasets", files={"file": ("d.txt.gz", body)})

    answer = post(member * 100 + b"\0" * 100_000)
    assert answer.status_code == 201 and answer.json()["rows"] == 100
    body = assert_problem(post(member * 101), 422, "invalid_dataset")
    assert "more than 100 members" in body["errors"][0]["message"]
    bombs = gzip.compress(b"word\n" * 1_000_000) * 20
    monkeypatch.setattr(get_settings(), "max_upload_bytes", 50_000_000)
    assert_problem(post(bombs), 413, "unpacked_too_large", "file")


def test_gzip_in_gzip_is_no_text(client: TestClient) -> None:
    body = gzip.compress(gzip.compress(b"word\n"))
    answer = client.post("/v1/datasets", files={"file": ("d.txt.gz", body)})
    assert_problem(answer, 422, "invalid_dataset")
    damaged = bytearray(gzip.compress(b"word\n" * 100))
    damaged[-6] ^= 1  # its checksum
    answer = client.post("/v1/datasets", files={"file": ("d.txt.gz", bytes(damaged))})
    assert_problem(answer, 422, "invalid_dataset")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"instruction": ' + b"[" * 100_000, "not JSON"),
        (b'{"instruction": NaN}', "not JSON"),
        (b'{"instruction": 1' + b"0" * 5000 + b"}", "not"),
        (b'{"instruction": "a", "id": 1' + b"0" * 30 + b"}", "not a string"),
    ],
)
def test_json_that_other_readers_choke_on(client: TestClient, line: bytes, message: str) -> None:
    answer = client.post("/v1/datasets", content=b'{"prompt":"a"}\n' + line, headers=JSONL)
    body = assert_problem(answer, 422, "invalid_dataset")
    ((error),) = body["errors"]
    assert error["line"] == 2 and message in error["message"]
    benchmark = client.post("/v1/datasets?kind=benchmark", content=line, headers=JSONL)
    assert_problem(benchmark, 422, "invalid_dataset")


def test_of_a_key_that_occurs_twice_the_last_counts(client: TestClient) -> None:
    line = b'{"instruction": "", "instruction": "b"}'
    assert client.post("/v1/datasets", content=line, headers=JSONL).status_code == 201


def test_a_form_of_a_hundred_thousand_parts(client: TestClient) -> None:
    body = part("name=file; filename=d.txt") + part("name=name", "") * 100_000 + "--xx--\r\n"
    assert_problem(client.post("/v1/datasets", content=body, headers=FORM), 422, "invalid_form")
    empty = part("name=x", "") * 100_000 + "--xx--\r\n"
    assert_problem(client.post("/v1/datasets", content=empty, headers=FORM), 422, "invalid_form")
    assert_nothing_left()


@pytest.mark.parametrize(
    "head",
    [
        "name=file; filename=" + "x" * 10_000_000,
        "name=file; filename=d.txt\r\nX-Long: " + "x" * 1_000_000,
        "name=file; filename=d.txt" + "\r\nX-Many: 1" * 1000,
        "name=file; filename=d.txt\r\n" + "x" * 1_000_000 + ": 1",
    ],
)
def test_a_part_with_a_huge_head(client: TestClient, head: str) -> None:
    body = part(head) + "--xx--\r\n"
    assert_problem(client.post("/v1/datasets", content=body, headers=FORM), 422, "invalid_form")
    assert_nothing_left()


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("../../../etc/x.txt", "x.txt"),
        ("..\\..\\x.txt", "x.txt"),
        ("/", None),
        ("a\u202etxt.exe\u202c.txt", "atxt.exe.txt"),
        ("\x1b[31mred\x07.txt", "[31mred.txt"),
        ("a\0b.txt", "ab.txt"),
        ("x" * 3000 + ".txt", "x" * 200),
        (".txt", ".txt"),
        ("nul \u200b\u2066.txt", "nul .txt"),
    ],
)
def test_names_of_files_are_made_safe(client: TestClient, filename: str, name: str | None) -> None:
    body = part(f'name="file"; filename="{filename}"\r\nContent-Type: text/plain') + "--xx--\r\n"
    answer = client.post("/v1/datasets", content=body.encode(), headers=FORM)
    assert answer.status_code == 201, answer.text
    out = answer.json()
    assert out["name"] == (out["id"] if name is None else name)
    files = [p.name for p in get_settings().artifacts_dir.rglob("*") if p.is_file()]
    assert sorted(files) == [f"{out['id']}.jsonl", f"{out['id']}.manifest.json"]


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("/v1/datasets", "text/plain"),
        ("/v1/datasets", "multipart/form-data; boundary=xx"),
        ("/v1/jobs", "application/json"),
    ],
)
def test_a_body_that_stops_coming(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, media: str
) -> None:
    monkeypatch.setattr(get_settings(), "body_idle_seconds", 0.05)
    for drips in (False, True):
        status, body = asyncio.run(stalling(client, path, media, drips))
        assert (status, body["code"]) == (408, "body_timeout")
    assert_nothing_left()


async def stalling(
    client: TestClient, path: str, media: str, drips: bool
) -> tuple[int, dict[str, Any]]:
    """The answer to a request whose body begins, and never goes on, or a byte at a time."""
    pieces, sent = iter([b"word\n"]), []

    async def receive() -> dict[str, Any]:
        if (piece := next(pieces, None)) is None:
            await (asyncio.sleep(0.005) if drips else asyncio.Event().wait())
            piece = b"x"
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", media.encode())],
        "server": ("localhost", 80),
        "client": ("test", 1),
    }
    await client.app(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


def test_a_full_disk_under_the_ids(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    written = sqlite3.connect

    def small(name: str) -> sqlite3.Connection:
        table = written(name)
        table.execute("PRAGMA max_page_count = 10")
        return table

    monkeypatch.setattr(sqlite3, "connect", small)
    lines = b"".join(b'{"prompt":"a","id":"%0100d"}\n' % i for i in range(2000))
    answer = client.post("/v1/datasets", content=lines, headers=JSONL)
    assert_problem(answer, 507, "storage_full")
    assert_nothing_left()


def test_what_zlib_says_is_the_reason(tmp_path: Path) -> None:
    broken = b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 100
    with pytest.raises(records.NotGzip) as error:
        records.unpacked(io.BytesIO(broken), 1000, tmp_path)
    assert isinstance(error.value.__cause__, zlib.error)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "path", ["../x.jsonl", "a/../../x.jsonl", "/etc/passwd", "datasets/../../x"]
)
def test_paths_of_artifacts_stay_in_their_folder(path: str) -> None:
    with pytest.raises(ValueError, match="leaves its folder"):
        artifacts.resolve(path)
    with pytest.raises(ValueError, match="leaves its folder"):
        artifacts.Writer("dataset", path)


@pytest.mark.parametrize("name", ["../../x", "..%2f..%2fx", "%2fetc%2fpasswd", "x%5c..%5cy"])
def test_names_in_addresses_are_no_paths(client: TestClient, name: str) -> None:
    for route in ("datasets", "recipes", "templates", "jobs", "models/m/versions"):
        answer = client.get(f"/v1/{route}/{name}")
        assert answer.status_code in (404, 422), (route, answer.text)
    outside = {"base_model": "../models/x", "name": "../../x"}
    for recipe in (name, outside):
        answer = client.post("/v1/jobs", json={"dataset": name, "recipe": recipe, "model": name})
        assert answer.status_code in (404, 422), answer.text
    assert_nothing_left()
