"""Tests with the libraries that users bring, run by scripts/check_ecosystem.py where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from selftaught import Client
from selftaught.client import Job

if "ECOSYSTEM_JOB" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as found:
        yield found


@pytest.fixture
def job(client: Client) -> Job:
    """A job of one iteration, which trained tour:1 with LoRA."""
    return client.jobs.get(os.environ["ECOSYSTEM_JOB"])


@pytest.fixture
def seed() -> str:
    """The folder of the base model."""
    return os.environ["ECOSYSTEM_SEED"]
