"""The plain script of benchmarks/tokens.py: `model.generate` with N replies to each prompt.

    python trl_sampling.py TASK.json

Runs in .venv-trl, which has nothing of this project. TASK: {model (a folder), batches: [[prompt]],
samples, sampling: {temperature, top_p, max_tokens}}. The last line of what it prints is JSON: for
each batch its texts (by prompt, N each; null if it was cut off), the tokens written for each prompt
(the end of a reply is one, padding behind it is none), and seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

AT_ONCE = 64
"""Prompts."""


def main() -> None:
    """All batches with one model and one seed."""
    task = json.loads(Path(sys.argv[1]).read_text())
    tokenizer = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32).eval()
    set_seed(0)
    told = [sample(model, tokenizer, prompts, task) for prompts in task["batches"]]
    print(json.dumps(told))


def sample(model: Any, tokenizer: Any, prompts: list[str], task: dict[str, Any]) -> dict[str, Any]:
    """N replies to each of these prompts, by length, so that little is padding."""
    began = time.perf_counter()
    ids = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in prompts
    ]
    n, sampling = task["samples"], task["sampling"]
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    texts: list[list[str | None]] = [[] for _ in ids]
    tokens = [0] * len(ids)
    for first in range(0, len(order), AT_ONCE):
        at = order[first : first + AT_ONCE]
        given = tokenizer.pad({"input_ids": [ids[one] for one in at]}, return_tensors="pt")
        with torch.inference_mode():
            found = model.generate(
                **given,
                do_sample=True,
                num_return_sequences=n,
                temperature=sampling["temperature"],
                top_p=sampling["top_p"],
                top_k=0,
                max_new_tokens=sampling["max_tokens"],
            )
        for number, reply in enumerate(found[:, given["input_ids"].shape[1] :].tolist()):
            ended = tokenizer.eos_token_id in reply
            written = reply.index(tokenizer.eos_token_id) + 1 if ended else len(reply)
            tokens[at[number // n]] += written
            text = tokenizer.decode(reply[:written], skip_special_tokens=True)
            texts[at[number // n]].append(text if ended else None)
    return {"texts": texts, "tokens": tokens, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
