"""A base model that cannot work is refused before anything is spent on it, with a reason."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from selftaught.inference.protocol import ModelLoadError
from services.trainer.base import check_base_model, origin

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


def test_origin_of_the_shipped_seed() -> None:
    assert origin(SEED) == {"license": "apache-2.0", "license_link": None, "revision": None}


def test_origin_of_a_download(folder: Path) -> None:
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---\n# A model\n"
    )
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (notes / f"{file}.metadata").write_text(f"{'e5' * 20}\netag\n1730000000.0\n")
    assert origin(folder) == {
        "license": "llama3",
        "license_link": "LICENSE",
        "revision": "e5" * 20,
    }
    (notes / "tokenizer.json.metadata").write_text(f"{'ab' * 20}\netag\n1730000000.0\n")
    assert origin(folder)["revision"] is None  # of no single commit


def test_origin_in_a_hub_cache(folder: Path) -> None:
    (folder / "README.md").unlink()
    cached = folder.parent / "snapshots" / ("c0" * 20)
    cached.parent.mkdir()
    folder.rename(cached)
    assert origin(cached) == {"license": None, "license_link": None, "revision": "c0" * 20}


@pytest.mark.parametrize("card", ["no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n"])
def test_a_model_card_that_says_nothing(folder: Path, card: str) -> None:
    (folder / "README.md").write_text(card)
    assert origin(folder)["license"] is None
