"""`selftaught export`: a version as whole weights, for whatever serves models and knows no adapter.

The version is asked of the gateway; its folder, and its base model's, must be on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from selftaught.inference.folders import check_folder
from selftaught.inference.protocol import ModelLoadError

TERMS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
"""Files of a base model that go wherever its weights go."""


class ExportError(Exception):
    """The version cannot be exported from here."""


def export(version: dict[str, Any], versions_dir: Path, out: Path) -> None:
    """Write config, tokenizer and safetensors to `out`, which must not exist, with the adapter
    merged into the base's weights, in the dtype that the base's are stored in.

    Beside them: the base's licence files, and `selftaught.json` with the version and its lineage.
    The whole model passes through this machine's memory. Raises ExportError.
    """
    folder = versions_dir / version["id"]
    if version["parent"] is None:
        raise ExportError(f"{version['ref']} is a base model as it is: there is nothing to merge")
    if out.exists():
        raise ExportError(f"{out} exists already")
    if not folder.is_dir():
        raise ExportError(f"{version['ref']}: no folder {version['id']} in {versions_dir}")
    settings = folder / "adapter_config.json"
    base = folder
    if settings.exists():
        base = Path(json.loads(settings.read_text())["base_model_name_or_path"])
        if not base.is_dir():
            raise ExportError(f"{version['ref']}: its base model {base} is not here")
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        check_folder(base)
        _write(folder, base, unfinished)
        for pattern in TERMS:
            for file in base.glob(pattern):
                shutil.copy(file, unfinished)
        told = {key: version[key] for key in ("ref", "sha256", "parent", "lineage")}
        (unfinished / "selftaught.json").write_text(json.dumps(told, indent=1) + "\n")
        unfinished.rename(out)
    except ModelLoadError as error:
        raise ExportError(error.reason) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(folder: Path, base: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    only_data = {"local_files_only": True, "trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, use_safetensors=True, dtype="auto", **only_data
    )
    if folder != base:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, **only_data).save_pretrained(out)
