"""A base model that cannot work is refused before anything is spent on it, with a reason."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from selftaught.inference.protocol import ModelLoadError
from services.trainer.base import check_base_model

SEED = Path(str(files("seeds"))) / "smallworld"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(SEED, tmp_path / "model", ignore=shutil.ignore_patterns("data"))


def test_the_shipped_seed_passes() -> None:
    check_base_model(SEED)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="no safetensors weights"):
        check_base_model(folder)


def test_cut_off_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="model"):
        check_base_model(folder)


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        check_base_model(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-thing"}))
    with pytest.raises(ModelLoadError, match="no-such-thing"):
        check_base_model(folder)


def test_no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelLoadError, match="no chat template"):
        check_base_model(folder)
