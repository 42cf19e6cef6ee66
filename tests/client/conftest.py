"""The client and a real gateway, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from selftaught import Client
from services.api.main import create_app
from tests.api.helpers import RECIPE, served
from tests.conftest import Servers


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def app(database: Servers) -> Any:
    """A gateway on empty tables."""
    return create_app()


@pytest.fixture
def url(app: Any) -> Iterator[str]:
    """Where it serves."""
    with served(app) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=30) as found:
        yield found


@pytest.fixture
def job(client: Client) -> Any:
    """A job that nobody works on."""
    dataset = client.datasets.upload({"instruction": f"say {n}"} for n in range(5))
    return client.jobs.create(dataset.id, recipe=RECIPE, model="m")
