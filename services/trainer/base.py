"""Checks that a base model can be used at all, before anything is spent on it."""

from __future__ import annotations

from pathlib import Path

from selftaught.inference.protocol import ModelLoadError


def check_base_model(folder: Path) -> None:
    """Read config, tokenizer and every weight file's header; raises ModelLoadError.

    The weights themselves are not loaded: a 70B model would take minutes, and a folder that passes
    here but fails later still ends its job with the same typed reason.
    """
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"base model {folder.name!r} has no config.json")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelLoadError(f"base model {folder.name!r} has no safetensors weights")
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        for file in weights:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelLoadError(f"base model {folder.name!r}: {error}") from error
    if tokenizer.chat_template is None:
        raise ModelLoadError(f"base model {folder.name!r}: its tokenizer has no chat template")
