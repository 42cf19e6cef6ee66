"""How much faster is the local engine than transformers' own `generate`?

Same model, same prompts, same number of sampled tokens, one thread, in turns; medians and a ratio.
Run: python -m benchmarks.local_engine [--prompts 100] [--samples 5] [--kv-heads 4] [--threads 1]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from selftaught.inference.local import LocalEngine, load_model
from selftaught.inference.protocol import Request, Sampling
from tests.tiny import tokenizer


def build(path: Path, kv_heads: int) -> None:
    """The size of the shipped seed: about 1.1 M parameters, random weights."""
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=768,
        hidden_size=128,
        num_hidden_layers=5,
        intermediate_size=384,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        initializer_range=0.1,  # confident choices, as a trained model makes them
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    words.save_pretrained(path)


def theirs(model: Any, words: Any, requests: list[Request], sampling: Sampling, rows: int) -> int:
    """Transformers' generate on length-sorted, left-padded batches; returns tokens written."""
    texts = [
        words.apply_chat_template(list(r.messages), tokenize=False, add_generation_prompt=True)
        for r in requests
        for _ in range(r.n)
    ]
    texts.sort(key=len)
    words.padding_side = "left"
    written = 0
    for start in range(0, len(texts), rows):
        batch = words(texts[start : start + rows], return_tensors="pt", padding=True)
        with torch.inference_mode():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                max_new_tokens=sampling.max_tokens,
            )
        written += int((out[:, batch["input_ids"].shape[1] :] != words.pad_token_id).sum())
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        build(path, args.kv_heads)
        engine = LocalEngine(path)
        model, words = load_model(path)
        model.eval()
        requests = [
            Request(
                [{"role": "user", "content": "abcdefgh " * 6 + "z" * (i % 16)}], i, args.samples
            )
            for i in range(args.prompts)
        ]
        sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=40)
        ours_rate, theirs_rate = [], []
        for _ in range(args.rounds):
            begun = time.perf_counter()
            answers = engine.generate(requests, sampling)
            ours = sum(c.completion_tokens for cs in answers for c in cs)
            ours_rate.append(ours / (time.perf_counter() - begun))
            begun = time.perf_counter()
            count = theirs(model, words, requests, sampling, 256)
            theirs_rate.append(count / (time.perf_counter() - begun))
        a, b = statistics.median(ours_rate), statistics.median(theirs_rate)
        print(
            f"{platform.processor() or platform.machine()}, {args.threads} thread(s), torch",
            end=" ",
        )
        print(f"{torch.__version__}, {args.prompts} prompts of about 75 tokens x {args.samples}")
        print(
            f"local engine {a:,.0f} tok/s, transformers generate {b:,.0f} tok/s, ratio {a / b:.2f}"
        )


if __name__ == "__main__":
    main()
