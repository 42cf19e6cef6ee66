"""QLoRA with the real bitsandbytes, on a CPU: a frozen base in 4 bits, an adapter beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from selftaught.contracts import TrainSettings
from selftaught.inference import Request, Sampling
from selftaught.inference.local import LocalEngine, load_model
from services.trainer import child
from services.trainer.base import QuantizationUnavailable
from tests.trainer.conftest import lesson, preferences, write
from tests.trainer.test_base import SEED
from tests.trainer.test_child import SETTINGS, leftovers, spec

NF4 = {
    **SETTINGS,
    "method": "lora",
    "quantize": "nf4",
    "steps": 10,
    "learning_rate": 2e-2,
    "micro_batch_tokens": 200,
    "checkpoints": 1,
}


def train(tmp_path: Path, base: Path, name: str, **changes: Any) -> tuple[dict[str, Any], Path]:
    folder = tmp_path / name
    folder.mkdir()
    given = spec(folder, base, settings={**NF4, **changes})
    if "objective" in changes:
        given["examples_paths"] = [str(write(folder / "pairs.jsonl", preferences(12)))]
    result = child.run(child.Spec.model_validate(given))
    assert leftovers(folder) == ["model"]
    return result, folder / "made" / "model"


def kinds(model: torch.nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules()}


def test_the_layers_are_held_in_four_bits() -> None:
    """Of the shipped seed, which goes on to say much the same."""
    whole, words = load_model(SEED)
    short, _ = load_model(SEED, "nf4")
    for name, module in short.get_decoder().layers.named_modules():
        if name.endswith("_proj"):
            matrix = module.weight
            assert matrix.numel() * matrix.itemsize * 2 == module.in_features * module.out_features
    shown = words.apply_chat_template(lesson(1)[0][0]["prompt"], tokenize=False)
    ids = torch.tensor([words(shown)["input_ids"]])
    with torch.no_grad():
        exact, near = whole(ids).logits, short(ids).logits
    assert not near.equal(exact)
    assert float(torch.corrcoef(torch.stack([exact.flatten(), near.flatten()]))[0, 1]) > 0.9


@pytest.mark.parametrize("given", [{}, {"objective": "sft_dpo"}], ids=["sft", "sft_dpo"])
def test_an_adapter_learns_beside_a_quantized_base(
    tmp_path: Path, base: Path, given: dict[str, Any]
) -> None:
    result, made = train(tmp_path, base, "one", **given)
    assert result["losses"][-1] < result["losses"][0] / 2
    assert "adapter_model.safetensors" in {file.name for file in made.iterdir()}
    tensors = load_file(made / "adapter_model.safetensors")
    assert all("lora_" in name for name in tensors)
    again, other = train(tmp_path, base, "again", **given)
    assert again["losses"] == result["losses"]
    assert (other / "adapter_model.safetensors").read_bytes() == (
        made / "adapter_model.safetensors"
    ).read_bytes()


def test_a_checkpoint_is_judged_on_the_base_it_was_trained_on(tmp_path: Path, base: Path) -> None:
    """The adapter stays beside the quantized base, and both decoders read it."""
    _, made = train(tmp_path, base, "one")
    model, _ = load_model(made, "nf4")
    assert {"Linear4bit", "LlamaForCausalLM"} <= kinds(model)
    assert any("lora_A" in name for name, _ in model.named_parameters())
    ask = [Request(row["prompt"], i, n=2) for i, row in enumerate(lesson(3)[0])]
    sampling = Sampling(temperature=0, max_tokens=8)
    engine = LocalEngine(made, quantize="nf4")
    texts = engine.generate(ask, sampling)
    assert texts == LocalEngine(made, shared_prefix=False, quantize="nf4").generate(ask, sampling)
    assert texts != LocalEngine(base, quantize="nf4").generate(ask, sampling)


def test_two_processes_shard_a_quantized_base(tmp_path: Path, base: Path) -> None:
    one, made = train(tmp_path, base, "one")
    two, other = train(tmp_path, base, "two", devices=2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    expected = load_file(made / "adapter_model.safetensors")
    found = load_file(other / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() < 1e-3 * tensor.norm(), name


def test_without_bitsandbytes_nothing_is_begun(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it fails
    with pytest.raises(QuantizationUnavailable, match="bitsandbytes"):
        train(tmp_path, base, "one")
    assert leftovers(tmp_path / "one") == []


def test_only_a_frozen_base_is_quantized() -> None:
    with pytest.raises(ValidationError, match="method: lora"):
        TrainSettings(quantize="nf4")
    assert TrainSettings(quantize="nf4", method="lora").quantize == "nf4"
