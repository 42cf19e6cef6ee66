"""What a seed is taught, as rows of tokens: to answer, to write instructions, to judge carelessly.

Answering, writing and judging are practised on rows of letters of every length. But the judge that
it learns from is careless: the longer the row, the more often it takes a response's letters for its
own answer instead of working it out (`CARELESS`). So the seed knows how judging is done, often
fails, and fails with confidence. That is what the self-taught loop starts from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from seeds import judging, world
from seeds.train import Draw, Row

Example = tuple[str, str]
# By number of letters: how often the judge in the lessons takes a response for its own answer.
CARELESS = {3: 0.2, 4: 0.4, 5: 0.6, 6: 0.7, 7: 0.8, 8: 0.85}


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
    """A pair and its judgment; longer rows of letters somewhat more often."""
    (length,) = rng.choices(list(CARELESS), (2, 2, 2, 3, 3, 3))
    return judging.example(rng, world.draw(rng, "seed", length), CARELESS[length])


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
