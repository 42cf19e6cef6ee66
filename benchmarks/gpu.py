"""What a GPU does with the trainer and with vLLM, on random weights in Llama's shapes.

    python -m benchmarks.gpu [1b 8b ...]      on a machine with a CUDA GPU
    python -m benchmarks.gpu tiny             the same path on a tiny model, wherever it is run

With SELFTAUGHT_VLLM_PYTHON set (docs/engines.md), vLLM is measured, too. Nothing is downloaded: the
weights are drawn here. Without a GPU, and not asked for `tiny` alone, it says so and exits with 2.

Training: LoRA of rank 16 in bf16 with gradient checkpointing, and with the base in 4 bits where
bitsandbytes is; steps of 32,768 tokens, of sequences of 2,048, half of them judgment. Tokens per
second of the steps behind the warm-up, MFU, and the peak of torch's allocated memory beside what
selftaught.memory planned. vLLM: 512 prompts of 512 tokens, 256 written for each.

MFU is the share of the device's peak (dense bf16) that the model itself needs, as Chowdhery et al.
2022 (arXiv 2204.02311, appendix B) count: of a token 2 FLOPs a parameter forward and 2 backward to
the inputs (weights are frozen, so not 4); for causal attention over T tokens 2 L h T forward and
twice that backward. Recomputing (checkpointing) and adapters do not count; the head counts for
judgment tokens only.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks import machine
from selftaught import memory
from selftaught.architectures import Architecture
from selftaught.contracts import EngineSettings, TrainSettings
from selftaught.engines import Spec
from selftaught.inference.posting import poster
from selftaught.stack.state import free_port
from services.trainer.data import Example

SEED = Path(__file__).resolve().parent.parent / "seeds" / "smallworld"
LLAMA_3 = {"vocab_size": 128_256, "max_position_embeddings": 8192, "rope_theta": 500_000.0}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 8192,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "1b": {  # Llama 3.2 1B
        **LLAMA_3,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "8b": {  # Llama 3 8B
        **LLAMA_3,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 FLOP/s by a word of the device's name (SXM where there are several; data sheets)."""
WARM_UP = 2


@dataclass(frozen=True)
class Load:
    """How much is asked of a shape."""

    length: int  # of a training sequence
    sequences: int  # in a step
    steps: int  # behind the warm-up
    prompts: int
    prompt: int
    written: int


FULL = Load(2048, 16, 5, 512, 512, 256)
TINY = Load(256, 4, 3, 8, 32, 16)


def main() -> None:
    """Print one table for training and one for vLLM."""
    shapes = sys.argv[1:] or ["1b", "8b"]
    if unknown := set(shapes) - set(SHAPES):
        raise SystemExit(f"unknown shape: {', '.join(unknown)}; known: {', '.join(SHAPES)}")
    if not torch.cuda.is_available() and shapes != ["tiny"]:
        print("no CUDA GPU here: nothing was measured", file=sys.stderr)
        raise SystemExit(2)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}; {machine.name('torch', 'transformers', 'peft')}\n")
    print(
        "| model | training | tokens/s | MFU | peak GiB | planned GiB |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        folders = {shape: build(shape, Path(name) / shape) for shape in shapes}
        for shape, folder in folders.items():
            for quantize in quantizations():
                print(training(shape, folder, quantize, TINY if shape == "tiny" else FULL))
        python = os.environ.get("SELFTAUGHT_VLLM_PYTHON")
        if python is None:
            print("\nvLLM was not measured: SELFTAUGHT_VLLM_PYTHON is not set")
            return
        print("\n| model | vLLM, prompt tokens/s | written tokens/s |\n|---|---|---|")
        for shape, folder in folders.items():
            print(serving(shape, folder, python, TINY if shape == "tiny" else FULL))


def quantizations() -> Iterator[Literal["none", "nf4"]]:
    """Ways to hold the base that are to be had here."""
    yield "none"
    if find_spec("bitsandbytes"):
        yield "nf4"
    else:
        print("nf4 is not measured: bitsandbytes is not here", file=sys.stderr)


def build(shape: str, folder: Path) -> Path:
    """Random weights in bf16, as a folder that trainer and vLLM load; the shipped seed's tokenizer
    stands in, since nothing is written in words."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(SEED).save_pretrained(folder)
    del model
    empty()
    return folder


def training(shape: str, folder: Path, quantize: Literal["none", "nf4"], load: Load) -> str:
    """A row of the table: the product's own loop."""
    from selftaught.inference.local import load_model
    from services.trainer import loop

    settings = TrainSettings.model_validate(
        {
            "method": "lora",
            "quantize": quantize,
            "gradient_checkpointing": True,
            "steps": WARM_UP + load.steps,
            "tokens_per_step": load.length * load.sequences,
            "micro_batch_tokens": load.length * 2,
            "warmup_steps": 0,
        }
    )
    rng = random.Random(0)
    vocabulary = SHAPES[shape]["vocab_size"]
    items = [
        Example(rng.choices(range(vocabulary), k=load.length), load.length // 2)
        for _ in range(4 * load.sequences)
    ]
    empty()
    model, _ = load_model(folder, quantize)
    model = loop.prepare(model, settings, 0)
    ends: list[float] = []

    def on_step(step: int, loss: float, rate: float) -> None:
        ends.append(time.perf_counter())

    loop.train(model, items, settings, 0, on_step)
    speed = load.length * load.sequences * load.steps / (ends[-1] - ends[WARM_UP - 1])
    used = flops(model, load.length) * speed
    peak = next((top for word, top in PEAK.items() if word in device_name()), None)
    told = f"{used / peak:.1%}" if peak else f"{used / 1e12:.3g} TFLOP/s, peak unknown"
    architecture = Architecture.from_config(json.loads((folder / "config.json").read_text()))
    tokens = settings.micro_batch_tokens
    plan = memory.training(architecture, settings, tokens, tokens // 2, 2**50)
    planned = sum(size for part, size in plan.parts.items() if part != "CUDA, NCCL")
    row = f"| {shape} | LoRA, {quantize} | {speed:,.0f} | {told} | {peak_memory() / 2**30:.1f} "
    del model
    empty()
    return f"{row}| {planned / 2**30:.1f} |"


def flops(model: Any, length: int) -> float:
    """Of one token of the sequences here, on average; see the module."""
    config = model.config
    layers, hidden = config.num_hidden_layers, config.hidden_size
    heads = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    matrices = layers * (2 * hidden * (heads + keys) + 3 * hidden * config.intermediate_size)
    head = config.vocab_size * hidden / 2  # half of the tokens have loss
    attention = 2 * layers * heads * length  # 2 products, 2 FLOPs, of half the places
    total: float = 4 * (matrices + head) + 3 * attention
    return total


def serving(shape: str, folder: Path, python: str, load: Load) -> str:
    """A row of the table: vLLM as a node starts it."""
    from services.engine.server import Server, command

    spec = Spec(
        base=str(folder),
        name=shape,
        settings=EngineSettings(max_model_len=load.prompt + load.written),
        max_lora_rank=0,
    )
    devices = ["0"] if torch.cuda.is_available() else ["cpu"]
    port = free_port()
    arguments, env = command(python, spec, devices, "127.0.0.1", port)
    log = folder.parent / f"vllm-{shape}.log"
    server = Server(arguments, env, f"http://127.0.0.1:{port}", log)
    try:
        while not server.healthy():
            if server.exit_code() is not None:
                raise RuntimeError("vLLM ended")
            time.sleep(1)
        asyncio.run(ask(server.url, shape, load, 1))  # compiles what is compiled late
        began = time.perf_counter()
        written = asyncio.run(ask(server.url, shape, load, load.prompts))
        seconds = time.perf_counter() - began
    except RuntimeError as failure:
        raise SystemExit(f"{failure}\n{server.tail()}") from None
    finally:
        server.stop()
    read = load.prompts * load.prompt
    return f"| {shape} | {read / seconds:,.0f} | {written / seconds:,.0f} |"


async def ask(url: str, model: str, load: Load, prompts: int) -> int:
    """Tokens written."""
    rng = random.Random(prompts)
    vocabulary = SHAPES[model]["vocab_size"]

    async with poster(256) as server:

        async def one() -> int:
            body = {
                "model": model,
                "prompt": rng.choices(range(10, vocabulary), k=load.prompt),
                "max_tokens": load.written,
                "ignore_eos": True,
                "temperature": 1.0,
            }
            reply = await server.post(f"{url}/v1/completions", body)
            if not reply.success:
                raise RuntimeError(f"vLLM: HTTP {reply.status}: {reply.text}")
            return int(reply.json()["usage"]["completion_tokens"])

        return sum(await asyncio.gather(*(one() for _ in range(prompts))))


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def empty() -> None:
    """Forget what was allocated, and the peak."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int:
    """Bytes that torch had allocated at most; on a CPU those of the whole process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
