"""A gateway in this process on real, empty Postgres tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from services.api.main import create_app
from tests.conftest import Servers


@pytest.fixture
def client(database: Servers) -> Iterator[TestClient]:
    """Answers of the gateway; a crash inside is a 500 as it is for everyone else."""
    with TestClient(create_app(), "http://localhost", raise_server_exceptions=False) as found:
        yield found


def assert_problem(answer: Any, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The answer is a complete problem with this status and code; returns its body."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body.get("code")) == (status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status and body["title"] and body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["type"] == "about:blank" and isinstance(body["errors"], list)
    if param is not None:
        assert body["param"] == param, body
    return body


def assert_error(answer: Any, status: int, code: str, param: str | None = None) -> str:
    """The answer is an error as OpenAI's clients read it; returns its message."""
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"error"}, body
    error = body["error"]
    assert (answer.status_code, error["code"]) == (status, code), body
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert error.keys() == {"message", "type", "param", "code"} and error["type"]
    if param is not None:
        assert error["param"] == param, body
    return str(error["message"])
