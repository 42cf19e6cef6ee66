"""A version that was trained with LoRA is an adapter that PEFT loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from selftaught import ApiError, Client
from selftaught.client import Job

PROMPT = "Swap the first and the last letter: m f q"


def answer(model: torch.nn.Module, tokenizer: object) -> str:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    with torch.inference_mode():
        written = model.generate(**asked, max_new_tokens=20, do_sample=False)
    return tokenizer.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_adapter_answers_as_the_version(
    client: Client, job: Job, seed: str, tmp_path: Path
) -> None:
    assert job.model == "tour"
    folder = client.models.download("tour", 1, tmp_path / "adapter", base=seed)
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA" and settings["base_model_name_or_path"] == seed
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    with torch.inference_mode():
        ids = tokenizer(PROMPT, return_tensors="pt").input_ids
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, folder).eval()
        found = adapted(ids).logits
        again = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert (found - plain).abs().max() > 1e-3
    torch.testing.assert_close(again.eval()(ids).logits.detach(), found)
    said = client._transport.call(  # what the platform's own engine says
        "POST",
        "/openai/v1/chat/completions",
        json={
            "model": "tour:1", "messages": [{"role": "user", "content": PROMPT}],
            "temperature": 0, "max_tokens": 20,
        },
    )  # fmt: skip
    assert answer(adapted, tokenizer) == said["choices"][0]["message"]["content"]


def test_what_cannot_be_taken_away(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="no_files"):
        client.models.download("tour", 0, tmp_path / "seed")
    with pytest.raises(ApiError, match="unknown_model"):
        client.models.download("tour", 9, tmp_path / "none")
    assert not list(tmp_path.iterdir())
