"""What a seed is taught, as rows of tokens: to answer, to write instructions, to judge a little.

Answering and writing are practised on rows of letters of every length. Judging is taught on short
ones: longer are rare in its lessons (`JUDGED`), so that the seed knows how judging is done, yet
often fails where it was not shown. That is what the self-taught loop starts from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from seeds import judging, world
from seeds.train import Draw, Row

Example = tuple[str, str]
# How often judging is practised on letters of each length.
JUDGED = {3: 0.45, 4: 0.38, 5: 0.145, 6: 0.015, 7: 0.006, 8: 0.004}


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[Row]:
    """Prompt and reply tokens, with the markers of the chat template."""
    end = "<|end|>"
    prompts = tokenizer([f"<|user|>{prompt}{end}<|assistant|>" for prompt, _ in examples])
    replies = tokenizer([reply + end for _, reply in examples])
    return list(zip(prompts["input_ids"], replies["input_ids"], strict=True))


def answering(rng: random.Random) -> Example:
    """An instruction and its answer."""
    instruction = world.draw(rng, "seed")
    return instruction.text, world.say(instruction.answer)


def writing(rng: random.Random) -> Example:
    """An instruction and another one like it."""
    instruction = world.draw(rng, "seed")
    prompt = judging.TEMPLATES["modify"].format(instruction=instruction.text)
    return prompt, world.modify(rng, instruction).text


def judged(rng: random.Random) -> Example:
    """A pair and its judgment."""
    (length,) = rng.choices(list(JUDGED), list(JUDGED.values()))
    return judging.example(rng, world.draw(rng, "seed", length))


def school(folder: Path, answer: float, write: float, rank: int) -> Draw:
    """A process's endless source of rows: shares of answering and of writing, the rest judging."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(f"{answer} {write} {rank}")

    def one() -> Example:
        kind = rng.random()
        if kind < answer:
            return answering(rng)
        return writing(rng) if kind < answer + write else judged(rng)

    return lambda count: encode(tokenizer, [one() for _ in range(count)])
