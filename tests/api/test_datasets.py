"""Uploads over HTTP: what is kept, and that nothing is kept of a bad one."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from selftaught.artifacts import resolve
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Dataset
from selftaught.settings import get_settings
from services.api import datasets
from tests.api.conftest import assert_problem
from tests.api.helpers import upload

JSONL = '{"instruction":"a"}\n{"instruction":"b","id":"x"}\n'
CSV = "prompt,other\na,1\nb,2\n"


def stored(dataset_id: str) -> list[dict[str, Any]]:
    text = resolve(f"datasets/{dataset_id}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def assert_nothing_left() -> None:
    folder = get_settings().artifacts_dir
    assert [p for p in folder.rglob("*") if p.is_file()] == []
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0
        assert session.scalar(select(func.count()).select_from(Artifact)) == 0


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/x-ndjson", JSONL),
        ("text/csv; charset=utf-8", CSV),
        ("text/plain", "a\nb\n"),
    ],
)
def test_raw_body(client: TestClient, media: str, body: str) -> None:
    answer = client.post("/v1/datasets?name=mine", content=body, headers={"content-type": media})
    assert answer.status_code == 201, answer.text
    out = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{out['id']}"
    assert (out["name"], out["kind"], out["rows"]) == ("mine", "instructions", 2)
    assert [row["instruction"] for row in stored(out["id"])] == ["a", "b"]
    data = resolve(f"datasets/{out['id']}.jsonl").read_bytes()
    assert out["sha256"] == hashlib.sha256(data).hexdigest() and out["bytes"] == len(data)
    assert client.get(answer.headers["location"]).json() == out


@pytest.mark.parametrize(
    ("filename", "media", "body"),
    [
        ("x.jsonl", "application/octet-stream", JSONL),
        ("x.CSV", "application/vnd.ms-excel", CSV),
        ("x.txt", "text/plain", "a\nb"),
        ("noname", "text/plain", "a\nb"),
    ],
)
def test_form(client: TestClient, filename: str, media: str, body: str) -> None:
    answer = client.post("/v1/datasets", files={"file": (filename, body, media)})
    assert answer.status_code == 201, answer.text
    out = answer.json()
    assert out["rows"] == 2 and out["name"] == filename
    assert [row["instruction"] for row in stored(out["id"])] == ["a", "b"]


@pytest.mark.parametrize("name", ["zwölf 日本.txt", "../../etc/passwd.txt", "C:\\\\x\\\\y.txt"])
def test_a_file_name_is_only_a_name(client: TestClient, name: str) -> None:
    body = (
        f'--xx\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        "a\r\n\r\n--xx--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    answer = client.post("/v1/datasets", content=body.encode(), headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] in (name, "passwd.txt", "y.txt")
    unknown = body.replace('name="file"', 'name="日"')
    answer = client.post("/v1/datasets", content=unknown.encode(), headers=headers)
    assert_problem(answer, 422, "invalid_form")


def test_form_fields_after_the_file(client: TestClient) -> None:
    body = (
        "--xx\r\nContent-Disposition: form-data; name=file; filename=d.csv\r\n\r\n"
        "q,chosen,rejected\r\ni,a,b\r\n"
        "\r\n--xx\r\nContent-Disposition: form-data; name=kind\r\n\r\nlabelled"
        "\r\n--xx\r\nContent-Disposition: form-data; name=column\r\n\r\nq"
        '\r\n--xx\r\nContent-Disposition: form-data; name="name"\r\n\r\nzwölf\r\n--xx--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    answer = client.post("/v1/datasets", content=body.encode(), headers=headers)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["kind"], answer.json()["name"]) == ("labelled", "zwölf")
    (row,) = stored(answer.json()["id"])
    assert row == {"id": "r2", "instruction": "i", "chosen": "a", "rejected": "b"}


def test_line_seven_is_not_json(client: TestClient) -> None:
    lines = [json.dumps({"instruction": f"say {i}"}) for i in range(10)]
    lines[6] = "say six"
    answer = client.post(
        "/v1/datasets", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
    )
    body = assert_problem(answer, 422, "invalid_dataset")
    assert [(e["line"], e["field"]) for e in body["errors"]] == [(7, None)]
    assert_nothing_left()


def test_a_row_without_the_column(client: TestClient) -> None:
    answer = client.post(
        "/v1/datasets?column=text",
        content='{"text": "a"}\n\n{"id": 2}\n',
        headers={"content-type": "application/x-ndjson"},
    )
    body = assert_problem(answer, 422, "invalid_dataset", "text")
    assert body["errors"] == [{"line": 3, "field": "text", "message": "missing"}]
    assert_nothing_left()


def test_the_first_hundred_errors_are_listed_and_all_are_counted(client: TestClient) -> None:
    answer = client.post(
        "/v1/datasets", content="x\n" * 317, headers={"content-type": "application/x-ndjson"}
    )
    body = assert_problem(answer, 422, "invalid_dataset")
    assert len(body["errors"]) == 100 and "317" in body["detail"]
    assert_nothing_left()


@pytest.mark.parametrize("form", [False, True])
def test_a_chunked_body_over_the_limit(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, form: bool
) -> None:
    monkeypatch.setattr(get_settings(), "max_upload_bytes", 3_000_000)
    head = b"--xx\r\nContent-Disposition: form-data; name=file; filename=d.txt\r\n\r\n"
    media = "multipart/form-data; boundary=xx" if form else "text/plain"
    pieces = [head if form else b"word\n", *[b"word\n" * 20_000] * 100]
    status, body, taken = send_chunked(client, media, iter(pieces))
    assert (status, body["code"]) == (413, "body_too_large")
    assert 30 <= taken <= 33  # the rest was never asked for
    assert_nothing_left()


def test_a_declared_length_over_the_limit(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "max_upload_bytes", 10)
    answer = client.post(
        "/v1/datasets", content="12345678901", headers={"content-type": "text/plain"}
    )
    assert_problem(answer, 413, "body_too_large")
    exact = client.post(
        "/v1/datasets", content="1234567890", headers={"content-type": "text/plain"}
    )
    assert exact.status_code == 201


@pytest.mark.parametrize(
    ("media", "body", "status", "code"),
    [
        ("text/plain", "\n \n", 422, "invalid_dataset"),
        ("text/plain", "", 422, "invalid_dataset"),
        ("application/json", "[]", 415, "unsupported_format"),
        ("", "a", 415, "unsupported_format"),
        ("multipart/form-data", "a", 422, "invalid_form"),
        ("multipart/form-data; boundary=xx", "no form", 422, "invalid_form"),
        ("multipart/form-data; boundary=xx", "--xx--\r\n", 422, "invalid_form"),
        ("multipart/form-data; boundary=" + "x" * 500, "a", 422, "invalid_form"),
    ],
)
def test_bodies_that_are_no_dataset(
    client: TestClient, media: str, body: str, status: int, code: str
) -> None:
    answer = client.post("/v1/datasets", content=body, headers={"content-type": media})
    assert_problem(answer, status, code)
    assert_nothing_left()


def test_a_file_of_another_type_is_named(client: TestClient) -> None:
    answer = client.post("/v1/datasets", files={"file": ("my pair.png", b"x", "image/png")})
    detail = assert_problem(answer, 415, "unsupported_format", "file")["detail"]
    assert detail == "my pair.png: not .jsonl .ndjson .csv .txt .parquet, with or without .gz"


@pytest.mark.parametrize(
    ("body", "column", "message"),
    [
        (
            '{"text": "a", "id": "1"}',
            "",
            "missing; if it is in 'text': column=text (--column text)",
        ),
        ('{"text": "a"}', "ask", "missing; if it is in 'text': column=text (--column text)"),
        ('{"text": 1, "source": "a"}', "", "missing"),
    ],
)
def test_a_field_that_may_be_the_instruction_is_named(
    client: TestClient, body: str, column: str, message: str
) -> None:
    query = {"column": column} if column else {}
    media = {"content-type": "application/x-ndjson"}
    answer = client.post("/v1/datasets", content=body, headers=media, params=query)
    (error,) = assert_problem(answer, 422, "invalid_dataset")["errors"]
    assert error == {"line": 1, "field": column or "instruction", "message": message}


def test_a_form_that_ends_early(client: TestClient) -> None:
    body = "--xx\r\nContent-Disposition: form-data; name=file; filename=d.txt\r\n\r\nhello\r\n"
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    assert_problem(client.post("/v1/datasets", content=body, headers=headers), 422, "invalid_form")
    assert_nothing_left()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"kind": "other"}, "invalid_request"),
        ({"nmae": "x"}, "invalid_form"),
        ({"name": "x" * 201}, "invalid_request"),
        ({"name": "x\0y"}, "invalid_request"),
    ],
)
def test_form_fields_are_checked(client: TestClient, data: dict[str, str], code: str) -> None:
    answer = client.post("/v1/datasets", files={"file": ("x.txt", "a\n")}, data=data)
    assert_problem(answer, 422, code)
    assert_nothing_left()


def test_unknown_query_fields_are_refused(client: TestClient) -> None:
    answer = client.post("/v1/datasets?knd=x", content="a", headers={"content-type": "text/plain"})
    assert_problem(answer, 422, "invalid_request", "knd")


def test_a_failed_transaction_takes_the_file_with_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(prefix: str) -> str:
        if prefix == "art":
            raise RuntimeError("no row today")
        return f"{prefix}_1"

    monkeypatch.setattr(datasets, "new_id", fail)
    answer = client.post("/v1/datasets", content="a\n", headers={"content-type": "text/plain"})
    body = assert_problem(answer, 500, "internal_error")
    assert "no row today" not in json.dumps(body)
    assert_nothing_left()


def test_a_full_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("selftaught.artifacts.Writer.publish", full)
    answer = client.post("/v1/datasets", content="a\n", headers={"content-type": "text/plain"})
    assert_problem(answer, 507, "storage_full")
    assert_nothing_left()


def test_pages_of_datasets(client: TestClient) -> None:
    ids = sorted((upload(client) for _ in range(5)), reverse=True)
    first = client.get("/v1/datasets?limit=3").json()
    assert [d["id"] for d in first["data"]] == ids[:3] and first["has_more"]
    second = client.get(f"/v1/datasets?limit=3&after={ids[2]}").json()
    assert [d["id"] for d in second["data"]] == ids[3:] and not second["has_more"]


def test_a_large_upload_keeps_no_copy_in_memory(client: TestClient) -> None:
    pieces = (f"{i} ".encode() + b"word " * 20_000 + b"\n" for i in range(300))
    tracemalloc.start()
    status, body, _ = send_chunked(client, "text/plain", pieces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 201 and body["bytes"] > 29_000_000
    assert peak < 10_000_000


def send_chunked(
    client: TestClient, media: str, pieces: Iterator[bytes]
) -> tuple[int, dict[str, Any], int]:
    """Status, body, and how many pieces were taken; TestClient itself would join them first."""
    taken = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        piece = next(pieces, None)
        taken += piece is not None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/datasets",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", media.encode())],
        "server": ("localhost", 80),
        "client": ("test", 1),
    }
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:])), taken


def test_rows_come_in_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f'{{"instruction": "do {n}"}}\n' for n in range(7))
    headers = {"content-type": "application/x-ndjson"}
    name = client.post("/v1/datasets", content=lines, headers=headers).json()["id"]
    at = f"/v1/datasets/{name}/rows"

    def rows(limit: int) -> list[str]:
        found: list[str] = []
        page = client.get(at, params={"limit": limit}).json()
        while True:
            found += [one["row"]["instruction"] for one in page["data"]]
            if not page["has_more"]:
                return found
            query = {"limit": limit, "after": page["data"][-1]["at"]}
            page = client.get(at, params=query).json()

    for limit in (1, 3, 7, 100):
        assert rows(limit) == [f"do {n}" for n in range(7)]
    monkeypatch.setattr(datasets, "_PAGE_BYTES", 10)  # of long rows a page has few
    assert len(client.get(at, params={"limit": 5}).json()["data"]) == 1
    assert rows(5) == [f"do {n}" for n in range(7)]
    for wrong in ("3", str(10**9), str(2**63 - 1)):
        assert_problem(client.get(f"{at}?after={wrong}"), 422, "invalid_request")
    assert_problem(client.get("/v1/datasets/ds_0/rows"), 404, "dataset_not_found")
