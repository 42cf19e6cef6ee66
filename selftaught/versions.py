"""Where a model version's weights are, and how to open an engine on them."""

from __future__ import annotations

from pathlib import Path

from selftaught.artifacts import fetched
from selftaught.database.tables import ModelVersion
from selftaught.engines import target
from selftaught.inference.factory import open_engine
from selftaught.inference.protocol import Engine
from selftaught.inference.vllm import VllmEngine
from selftaught.settings import get_settings


def version_folder(version: ModelVersion) -> Path:
    """The folder of its weights; raises StoreError."""
    return folder_of(version.path)


def folder_of(path: str) -> Path:
    """The folder that a version's `path` means on this node.

    Trained versions lie below the versions folder, fetched if they are not there yet; base models
    lie where their absolute path says, on every node. Raises StoreError.
    """
    if Path(path).is_absolute():
        return Path(path).resolve()
    return fetched((get_settings().versions_dir / path).resolve())


def open_version(version: ModelVersion, job_id: str = "", patience: float | None = None) -> Engine:
    """The engine that answers as this version; raises ModelLoadError, StoreError.

    What runs here is loaded once per process. Of one on managed servers `job_id` names the job that
    is told of them, and `patience` is how long to wait for one to be ready (seconds; None: as long
    as a node tries).
    """
    backend = version.lineage["inference"]
    if backend == "vllm":
        return VllmEngine(target(version, version_folder(version)), job_id, patience)
    if backend == "local":
        return open_engine("local", version_folder(version))
    name = version.lineage["recipe"]["base_model"]
    return open_engine(backend, name, get_settings().endpoints)
