"""Checks that a base model can be used at all, before anything is spent on it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from selftaught.artifacts import sync_folder
from selftaught.contracts import LoraSettings, TrainSettings
from selftaught.inference.folders import check_folder
from selftaught.inference.protocol import ModelLoadError

log = logging.getLogger(__name__)


def check_base_model(folder: Path) -> None:
    """Look at the folder, read config, tokenizer and every weight file's header.

    Raises ModelLoadError, also for a folder that is not only data (check_folder).

    The weights themselves are not loaded: a 70B model would take minutes, and a folder that passes
    here but fails later still ends its job with the same typed reason.
    """
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoTokenizer

    check_folder(folder)
    only_data = {"local_files_only": True, "trust_remote_code": False}
    try:
        AutoConfig.from_pretrained(folder, **only_data)
        tokenizer = AutoTokenizer.from_pretrained(folder, **only_data)
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelLoadError(f"base model {folder.name!r}: {error}") from error
    if tokenizer.chat_template is None:
        raise ModelLoadError(f"base model {folder.name!r}: its tokenizer has no chat template")


def origin(folder: Path) -> dict[str, str | None]:
    """What a base model's folder says of where it comes from; None for what it does not say.

    `license`: of its model card (README.md), by name where that says "other"; `license_link`: where
    the card says its text is; `revision`: the commit that huggingface_hub downloaded, in its cache
    or in a folder of the user's.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    found: dict[str, str | None] = dict.fromkeys(("license", "license_link", "revision"))
    card = folder / "README.md"
    if card.is_file():
        try:
            data = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
        except (YAMLError, ValueError) as error:
            log.warning("the model card of %s cannot be read: %s", folder.name, error)
        else:
            named = data.get("license")
            named = data.get("license_name", named) if named == "other" else named
            found["license"] = str(named) if named else None
            found["license_link"] = data.get("license_link")
    commits = {folder.name} if folder.parent.name == "snapshots" else set()
    for note in (folder / ".cache" / "huggingface" / "download").glob("*.metadata"):
        commits.update(note.read_text().splitlines()[:1])
    if len(commits) == 1:  # files of several commits are of none
        found["revision"] = commits.pop()
    return found


class QuantizationUnavailable(RuntimeError):
    """The recipe holds the base in 4 bits, and nothing here can."""


def check_quantization(settings: TrainSettings) -> None:
    """Raises QuantizationUnavailable where the settings need bitsandbytes and it is not there."""
    if settings.quantize == "none":
        return
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise QuantizationUnavailable(
            f"train.quantize {settings.quantize!r} needs bitsandbytes, which the trainer has not "
            "(extra: qlora)"
        ) from error


def write_probe_adapter(folder: Path, settings: LoraSettings, seed: int, out: Path) -> None:
    """An adapter of the kind that a training with `settings` makes, of its first layer only.

    No weights are loaded: the model is built without memory, so this costs seconds for any size.
    What serves adapters is asked to load it before anything is spent on training one.
    """
    import torch
    from peft import get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from services.trainer.loop import lora_config

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        model = get_peft_model(base, lora_config(settings))
    shapes = {name: tensor.shape for name, tensor in get_peft_model_state_dict(model).items()}
    first = {name: shape for name, shape in shapes.items() if ".layers.0." in name} or shapes
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.empty(shape).normal_(0.0, 0.02, generator=generator)
        for name, shape in first.items()
    }
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_file(tensors, unfinished / "adapter_model.safetensors")
    saved = model.peft_config["default"]
    saved.base_model_name_or_path = str(folder)
    saved.inference_mode = True
    saved.save_pretrained(str(unfinished))
    sync_folder(unfinished)
    if out.exists():  # the same for the same base and settings
        shutil.rmtree(unfinished)
    else:
        unfinished.rename(out)
