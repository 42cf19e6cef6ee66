"""A model's folder is data: what could run code or reaches outside is refused, unread."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from selftaught import registry
from selftaught.inference.folders import check_folder
from selftaught.inference.local import load_model
from selftaught.inference.protocol import ModelLoadError
from services.engine import server
from services.trainer.base import check_base_model

SEED = Path(str(files("seeds"))) / "smallworld"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(SEED, tmp_path / "model", ignore=shutil.ignore_patterns("data"))


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def setting(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | changes))

    return change


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(folder / "ran")))


def a_link_outside(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to("../tokenizer.json")


def code(folder: Path) -> None:
    """As a repository with a model of its own brings it."""
    (folder / "modeling_own.py").write_text("import os\nos.mkdir('ran')\n")
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    setting("config.json", model_type="own", auto_map=own)(folder)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled weights": (only_a_pickle, r"only pytorch_model\.bin, which could run code"),
    "a link outside": (a_link_outside, r"tokenizer\.json is a link to outside"),
    "code of its own": (code, r"config\.json names code of its own"),
    "a tokenizer's code": (
        setting("tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.Own", None]}),
        r"tokenizer_config\.json names code of its own",
    ),
    "code in a part": (
        setting("config.json", text_config={"auto_map": {"AutoConfig": "x.Y"}}),
        "names code of its own",
    ),
    "kernels": (
        setting("config.json", attn_implementation="somebody/kernel"),
        "names kernels to be fetched",
    ),
    "kernels inside": (
        setting("config.json", _attn_implementation_internal="somebody/kernel:forward"),
        "names kernels to be fetched",
    ),
    "an adapter": (
        setting("adapter_config.json", base_model_name_or_path="/", peft_type="LORA"),
        "is an adapter",
    ),
    "an index that leaves": (
        setting("model.safetensors.index.json", weight_map={"w": "../other.safetensors"}),
        "names '../other.safetensors'",
    ),
    "an index of nothing": (setting("model.safetensors.index.json", weight_map=3), "weight_map"),
    "nested settings": (
        lambda folder: (folder / "config.json").write_text('{"a":' * 100_000) and None,
        r"config\.json is not JSON",
    ),
    "settings that are a list": (
        lambda folder: (folder / "config.json").write_text("[]") and None,
        "not a JSON object",
    ),
    "large settings": (
        lambda folder: (folder / "config.json").write_text("{" + " " * 5_000_000 + "}") and None,
        "larger than",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_folder_that_is_not_only_data(folder: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    spoil(folder)
    with pytest.raises(ModelLoadError, match=message):
        check_base_model(folder)
    if case != "an adapter":  # of which this one would look for the base
        with pytest.raises(ModelLoadError, match=message):
            load_model(folder)
    assert not (folder / "ran").exists() and not Path("ran").exists()


def test_a_pickle_beside_safetensors_is_never_read(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(folder / "ran")))
    setting("config.json", attn_implementation="sdpa")(folder)
    check_base_model(folder)
    load_model(folder)
    assert not (folder / "ran").exists()


def test_a_snapshot_in_the_hubs_cache_links_to_its_blobs(folder: Path) -> None:
    cache = folder.parent / "models--a--b"
    snapshot = cache / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    folder.rename(cache / "blobs")
    for file in (cache / "blobs").iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    check_folder(snapshot)
    (cache / "secret").write_text("{}")
    (snapshot / "other.json").symlink_to("../../secret")
    with pytest.raises(ModelLoadError, match="link to outside"):
        check_folder(snapshot)


@pytest.mark.parametrize("name", ["../model", "/etc", ".hidden", "a/b", "model\n", "model\0", ""])
def test_names_of_base_models_are_no_paths(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (folder.parent / ".hidden").mkdir()
    (folder.parent / "model\n").mkdir()
    monkeypatch.setattr(registry.get_settings(), "models_dir", folder.parent)
    assert registry.base_model_path("model") == folder.resolve()
    with pytest.raises(registry.UnknownName):
        registry.base_model_path(name)


def test_a_server_never_falls_back_to_pickles(folder: Path) -> None:
    from tests.engine.test_server import spec

    arguments, _ = server.command("python", spec(), ["0"], "127.0.0.1", 1)
    assert arguments[arguments.index("--load-format") + 1] == "safetensors"
    assert "--trust-remote-code" not in arguments
