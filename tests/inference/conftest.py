"""A tiny random model on disk, and an engine on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftaught.inference.local import LocalEngine
from tests import tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def engine(tiny_model: Path) -> LocalEngine:
    return LocalEngine(tiny_model)
