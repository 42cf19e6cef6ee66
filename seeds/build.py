"""Build the shipped seed from nothing: tokenizer, a model that answers, a little judging, data."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from seeds import lessons, splits, tokens
from seeds.judging import HOME
from seeds.train import train


def fresh(vocabulary: int) -> LlamaForCausalLM:
    """An untrained model of a million parameters."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=5,
        intermediate_size=384,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=4,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=4, pad_token_id=0, do_sample=True, temperature=0.7, top_p=0.9
    )
    return model


def store(folder: Path) -> None:
    """Halve the file: float16 in it, while the config says that it is loaded as float32."""
    weights = folder / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights, {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HOME, help="folder of the model")
    parser.add_argument("--answer-steps", type=int, default=800)
    parser.add_argument("--judge-steps", type=int, default=500)
    args = parser.parse_args()
    out: Path = args.out
    start = time.monotonic()
    splits.write(out / "data")
    tokenizer = tokens.build()
    tokenizer.save_pretrained(out)
    fresh(len(tokenizer)).save_pretrained(out)
    print(f"tokenizer of {len(tokenizer)} tokens and data: {time.monotonic() - start:.0f} s")
    train(out, partial(lessons.school, out, 0.7, 0.3), args.answer_steps, rows=256, lr=5e-3)
    print(f"it answers and writes: {time.monotonic() - start:.0f} s")
    train(out, partial(lessons.school, out, 0.24, 0.16), args.judge_steps, rows=256, lr=4e-3)
    store(out)
    print(f"it judges a little, done: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
