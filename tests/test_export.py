"""A version becomes whole weights that answer as base and adapter did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selftaught.contracts import LoraSettings
from selftaught.export import ExportError, export
from selftaught.inference.local import load_model
from services.trainer.base import write_probe_adapter
from tests import tiny

VERSION: dict[str, Any] = {
    "ref": "judge:1",
    "id": "ver_1",
    "sha256": "ab",
    "parent": "judge:0",
    "lineage": {"seed": 0, "base_model": {"license": "apache-2.0"}},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.build(tmp_path / "base")


@pytest.fixture
def versions(tmp_path: Path, base: Path) -> Path:
    folder = tmp_path / "versions"
    folder.mkdir()
    write_probe_adapter(base, LoraSettings(rank=4, alpha=8), 1, folder / "ver_1")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "ver_1")
    (base / "LICENSE").write_text("terms")
    return folder


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer("Reverse these letters: k f", return_tensors="pt").input_ids
    with torch.no_grad():
        return model(ids).logits  # type: ignore[no-any-return]


def test_the_export_answers_as_the_adapter_does(versions: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(VERSION, versions, out)
    assert not (out / "adapter_config.json").exists()
    assert list(out.glob("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out)
    adapted, _ = load_model(versions / "ver_1")
    plain, _ = load_model(base)
    found = logits(model, tokenizer)
    torch.testing.assert_close(found, logits(adapted, tokenizer), atol=1e-4, rtol=1e-4)
    assert (found - logits(plain, tokenizer)).abs().max() > 0.01
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    assert (out / "LICENSE").read_text() == "terms"
    told = json.loads((out / "selftaught.json").read_text())
    assert (told["ref"], told["lineage"]) == ("judge:1", VERSION["lineage"])


def test_what_cannot_be_exported(versions: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        export(VERSION, versions, tmp_path / "there")
    with pytest.raises(ExportError, match="no folder ver_2"):
        export({**VERSION, "id": "ver_2"}, versions, tmp_path / "out")
    with pytest.raises(ExportError, match="nothing to merge"):
        export({**VERSION, "parent": None}, versions, tmp_path / "out")
    settings = versions / "ver_1" / "adapter_config.json"
    changed = json.loads(settings.read_text()) | {"base_model_name_or_path": "/nowhere/base"}
    settings.write_text(json.dumps(changed))
    with pytest.raises(ExportError, match="/nowhere/base is not here"):
        export(VERSION, versions, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))] == []
