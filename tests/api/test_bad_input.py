"""The corpus of bad input (bad_input.yaml): each gets its status and code, and adds nothing."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from starlette.testclient import TestClient

from selftaught.settings import get_settings
from services.api.main import create_app
from tests.api.conftest import assert_problem
from tests.api.tenants import Tenant, make, rows_of
from tests.api.walls import fill
from tests.conftest import Servers, fresh

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "bad_input.yaml").read_text())
LARGEST_UPLOAD, LARGEST_ROW = 200_000, 4_000


def parquet(**columns: list[Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


GZIP = gzip.compress(b'{"instruction": "a"}\n' * 100, mtime=0)
FILES = {
    "half a gzip": GZIP[:-10],
    "a gzip in a gzip": gzip.compress(GZIP, mtime=0),
    "half a Parquet": parquet(instruction=["a"] * 100)[:-50],
    "a Parquet of numbers": parquet(instruction=[1, 2, 3]),
}


@pytest.fixture(scope="module")
def gateway(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Tenant]]:
    """An open gateway whose project has one of everything."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("corpus")
        with fresh(servers, home, patch):
            patch.setenv("SELFTAUGHT_MAX_UPLOAD_BYTES", str(LARGEST_UPLOAD))
            patch.setenv("SELFTAUGHT_MAX_ROW_BYTES", str(LARGEST_ROW))
            get_settings.cache_clear()
            tenant = make("default", "red", "crimson", 70707, [])
            app = create_app()
            with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
                yield client, tenant


def content_of(case: dict[str, Any], names: dict[str, str]) -> bytes | None:
    """The body of a case, as bytes; None without one."""
    if "file" in case:
        return FILES[case["file"]]
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    if "json" in case:
        return fill(json.dumps(case["json"]), names).encode()
    text = case.get("json_text", case.get("text"))
    if "repeat" in case:
        piece, times = case["repeat"]
        text = piece * times
    if "nested" in case:
        text = "[" * case["nested"] + "]" * case["nested"]
    if text is None:
        return None
    before, after = case.get("around", ("", ""))
    found = fill(before, names).encode() + text.encode() + after.encode()
    return gzip.compress(found) if case.get("gzip") else found


def request_of(case: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    method, path = case["send"].split(" ", 1)
    content, headers = content_of(case, names), dict(case.get("headers", {}))
    for field in ("name", "after"):
        if length := case.get(f"long_{field}"):
            path += f"?{field}={'x' * length}"
    found: dict[str, Any] = {"method": method, "url": fill(path, names), "headers": headers}
    if "form" in case:
        fields = dict(case["form"])
        name, media = fields.pop("file")
        return {**found, "data": fields, "files": {"file": (name, content, media)}}
    if {"json", "json_text", "nested"} & case.keys():
        headers.setdefault("content-type", "application/json")
    return {**found, "content": content}


def test_the_corpus_is_large_and_each_case_is_one() -> None:
    assert len(CASES) >= 60
    told = [(case["send"], case["what"]) for case in CASES]
    assert len(set(told)) == len(told)
    kinds = {"application/x-ndjson", "text/csv", "text/plain", "application/vnd.apache.parquet"}
    assert kinds <= {case.get("headers", {}).get("content-type") for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=[f"{case['send']}: {case['what']}" for case in CASES])
def test_it_is_refused_and_changes_nothing(
    gateway: tuple[TestClient, Tenant], case: dict[str, Any]
) -> None:
    client, tenant = gateway
    before, files = rows_of(None), files_there()
    answer = client.request(**request_of(case, tenant.own))
    body = assert_problem(answer, case["status"], case["code"], case.get("param"))
    if "line" in case:
        assert body["errors"][0]["line"] == case["line"], body
    if case["status"] == 405:
        assert answer.headers["allow"] == "GET, POST"
    assert rows_of(None) == before
    assert files_there() == files


def files_there() -> set[Path]:
    return {path for path in get_settings().home.rglob("*") if path.is_file()}
