"""How much faster is the local engine than transformers' own `generate`?

The shipped seed judges instructions of its world, several samples each, temperature 0.7, top_p 0.9.
Both write with the same weights, in turns; the medians are tokens per second of CPU time of this
process, so that neighbours on the machine do not count.
Run: python -m benchmarks.local_engine [--prompts 100] [--samples 5] [--threads 1] [--rounds 5]
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from seeds import world
from selftaught.inference.local import LocalEngine, load_model
from selftaught.inference.protocol import Request, Sampling
from selftaught.judging import load_judge_template

SEED_MODEL = Path(world.__file__).parent / "smallworld"
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=48)
ROWS = 256


def questions(count: int, samples: int) -> list[Request]:
    """Judge prompts about a right answer and the answer to a similar instruction."""
    rng = random.Random(0)
    template = load_judge_template("smallworld")
    requests = []
    for number in range(count):
        asked = world.draw(rng, "pool")
        other = world.modify(rng, asked)
        shown = template.render(asked.text, world.say(asked.answer), world.say(other.answer))
        requests.append(Request(shown, number, samples))
    return requests


def ours(engine: LocalEngine, requests: list[Request]) -> int:
    """Tokens that the local engine wrote."""
    answers = engine.generate(requests, SAMPLING)
    return sum(completion.completion_tokens for several in answers for completion in several)


def theirs(model: Any, words: Any, requests: list[Request]) -> int:
    """Tokens that `generate` wrote, on left-padded batches sorted by length."""
    texts = [
        words.apply_chat_template(list(r.messages), tokenize=False, add_generation_prompt=True)
        for r in requests
        for _ in range(r.n)
    ]
    texts.sort(key=len)
    words.padding_side = "left"
    written = 0
    for start in range(0, len(texts), ROWS):
        batch = words(
            texts[start : start + ROWS], return_tensors="pt", padding=True, add_special_tokens=False
        )
        with torch.inference_mode():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=True,
                temperature=SAMPLING.temperature,
                top_p=SAMPLING.top_p,
                top_k=0,
                max_new_tokens=SAMPLING.max_tokens,
                pad_token_id=words.pad_token_id,
            )
        written += int((out[:, batch["input_ids"].shape[1] :] != words.pad_token_id).sum())
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    engine = LocalEngine(SEED_MODEL, max_rows=ROWS)
    model, words = load_model(SEED_MODEL)
    model.eval()
    requests = questions(args.prompts, args.samples)
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(args.rounds):
        begun = time.process_time()
        rates["ours"].append(ours(engine, requests) / (time.process_time() - begun))
        begun = time.process_time()
        rates["theirs"].append(theirs(model, words, requests) / (time.process_time() - begun))
    a, b = statistics.median(rates["ours"]), statistics.median(rates["theirs"])
    print(f"{_cpu()}, {args.threads} thread(s), torch {torch.__version__}")
    print(
        f"{args.prompts} prompts x {args.samples} samples, medians of {args.rounds} rounds in turns"
    )
    print(f"local engine {a:,.0f}, transformers generate {b:,.0f} tokens per CPU second")
    print(f"ratio {a / b:.2f}")


def _cpu() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
