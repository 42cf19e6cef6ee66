"""What holds for all calls: addresses, keys, errors, answers of other versions, tries."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import httpx
import pytest

import selftaught
from selftaught import ApiError, AsyncClient, Client
from selftaught.client._sync import transport
from selftaught.client.answers import parse, url
from selftaught.client.files import Sent
from selftaught.contracts import EvaluationOut, ProjectOut
from tests.api.helpers import RECIPE, served


def test_where_and_with_which_key(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SELFTAUGHT_URL", url)
    with Client() as client:
        assert client.usage().project == "default"
    monkeypatch.setenv("SELFTAUGHT_API_KEY", "st_wrong")
    with Client() as client, pytest.raises(ApiError) as caught:
        client.usage()
    assert (caught.value.status, caught.value.code) == (401, "invalid_key")
    monkeypatch.delenv("SELFTAUGHT_URL")
    assert Client().base_url == "http://127.0.0.1:8080"
    with pytest.raises(ValueError, match="must begin with http"):
        Client("localhost:8080")


def test_an_error_says_what_is_wrong(client: Client) -> None:
    dataset = client.datasets.upload([{"instruction": "i"}])
    with pytest.raises(ApiError) as caught:
        client.jobs.create(dataset.id, recipe={**RECIPE, "iteration": 3})
    error = caught.value
    assert (error.status, error.code, error.param) == (422, "invalid_recipe", "recipe.iteration")
    assert error.errors[0]["field"] == "recipe.iteration"
    assert error.request_id and error.retry_after is None
    assert str(error) == f"422 invalid_recipe: {error.detail}"
    again = pickle.loads(pickle.dumps(error))
    assert (again.status, again.problem, str(again)) == (422, error.problem, str(error))
    with pytest.raises(ValueError, match="'' is not a name"):
        client.jobs.get("")
    with pytest.raises(ApiError, match="404 not_found"):
        client.jobs.get("../models")
    assert url("v1", "a/b?c", 3) == "/v1/a%2Fb%3Fc/3"


def test_a_key_goes_to_its_gateway_only(client: Client) -> None:
    """Also where the gateway itself names addresses, as of files."""
    for elsewhere in ("http://127.0.0.1:9/v1/caller", "HTTP://a@b/", "x"):
        with pytest.raises(ValueError, match="no path of this gateway"):
            client.call("GET", elsewhere)
    with pytest.raises(ApiError, match="404"):
        client.call("GET", "//127.0.0.1:9/nothing")


def test_fields_of_a_newer_gateway_are_left_out() -> None:
    told = copy.deepcopy(EvaluationOut.model_json_schema()["examples"][0])
    told["new"] = told["settings"]["new"] = told["scores"][0]["figures"][0]["new"] = 1
    known = EvaluationOut.model_json_schema()["examples"][0]
    assert parse(EvaluationOut, told) == parse(EvaluationOut, known)
    project = copy.deepcopy(ProjectOut.model_json_schema()["examples"][0])
    project["limits"]["new"] = 1
    assert parse(ProjectOut, project).limits.requests_per_minute == 600


async def _stranger(scope: Any, receive: Any, send: Any) -> None:
    """Something else that speaks HTTP."""
    answers: dict[str, tuple[int, list[tuple[bytes, bytes]], bytes]] = {
        "/v1/usage": (200, [], b"<html>"),
        "/v1/datasets": (200, [], b"[]"),
        "/v1/jobs": (301, [(b"location", b"https://else.example/v1/jobs")], b""),
        "/v1/jobs/1": (200, [], b"{}"),
        "/v1/jobs/2": (502, [], b"bad gateway"),
    }
    status, headers, body = answers[scope["path"]]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def test_what_is_no_gateway() -> None:
    with served(_stranger) as found, Client(found, retries=0) as client:
        for call in (
            client.usage,
            lambda: list(client.datasets.list()),
            lambda: client.jobs.get("1"),
        ):
            with pytest.raises(ApiError) as caught:
                call()
            assert caught.value.code == "unexpected_answer"
        with pytest.raises(ApiError, match=r"301 http_error: https://else\.example"):
            list(client.jobs.list())
        with pytest.raises(ApiError, match="502 http_error"):
            client.jobs.get("2")
    with Client(found, retries=0) as client, pytest.raises(httpx.ConnectError):
        client.usage()


def test_what_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may pass, and no question whose time is over; each with one key."""
    monkeypatch.setattr(transport, "PAUSE", 0.0)
    asked: list[tuple[str, str]] = []

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        asked.append((scope["path"], headers.get(b"idempotency-key", b"").decode()))
        problem = [(b"content-type", b"application/problem+json")]
        status, headers = {
            "/v1/usage": (503, problem),
            "/judge": (504, problem),
            "/v1/keys": (504, []),
            "/v1/models/m/aliases/a": (429, [*problem, (b"retry-after", b"61")]),
        }[scope["path"]]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"code": "c", "detail": "d"}'})

    with served(failing) as found, Client(found, retries=2) as client:
        for call in (
            client.usage,
            lambda: client.judge("i", "a", "b"),
            lambda: client.keys.create("k", ["read"]),
        ):
            with pytest.raises(ApiError):
                call()
        with pytest.raises(ApiError) as caught:
            client.models.alias("m", "a")
        assert caught.value.retry_after == 61
    paths = [path for path, _ in asked]
    assert [paths.count(path) for path in ("/v1/usage", "/judge", "/v1/keys")] == [3, 1, 3]
    assert paths.count("/v1/models/m/aliases/a") == 1, "it says to wait for longer than one waits"
    assert len({key for path, key in asked if path == "/v1/keys"}) == 1


def test_services_do_not_pay_for_it_and_it_needs_nothing_of_theirs() -> None:
    code = (
        "import sys, selftaught; assert 'httpx' not in sys.modules;"
        "selftaught.Client('http://h'); selftaught.AsyncClient('http://h');"
        "there = {'torch', 'fastapi', 'starlette', 'sqlalchemy', 'celery', 'redis', 'yaml',"
        "'aiohttp', 'numpy', 'orjson', 'pydantic_settings', 'typer'} & sys.modules.keys();"
        "assert not there, there"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"Client", "AsyncClient", "ApiError", "JobFailed"} <= set(dir(selftaught))
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        selftaught.Klient  # noqa: B018
    assert selftaught.AsyncClient is AsyncClient


def test_a_file_that_is_sent_again_begins_anew(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    told: list[tuple[int, int]] = []
    with Sent(path, lambda sent, total: told.append((sent, total))) as file:
        while file.read(4):
            pass
        file.seek(0)
        assert file.read() == b"x" * 10
    assert told == [(4, 10), (8, 10), (10, 10), (10, 10), (10, 10)]
