"""Where a model version's weights are, and how to open an engine on them."""

from __future__ import annotations

from pathlib import Path

from selftaught.database.tables import ModelVersion
from selftaught.inference.factory import open_engine
from selftaught.inference.protocol import Engine
from selftaught.settings import get_settings


def version_folder(version: ModelVersion) -> Path:
    """The folder: trained versions lie below the versions folder, base models where they are."""
    return (get_settings().versions_dir / version.path).resolve()


def open_version(version: ModelVersion) -> Engine:
    """The engine that answers as this version, loaded once per process; raises ModelLoadError."""
    backend = version.lineage["inference"]
    if backend == "local":
        return open_engine("local", version_folder(version))
    name = version.lineage["recipe"]["base_model"]
    return open_engine(backend, name, get_settings().endpoints)
