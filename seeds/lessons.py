"""What a seed is taught, as rows of tokens: to answer, to write instructions, and a little judging.

Answering and writing are practised without end on fresh instructions. Judging is learned from few
examples (`JUDGED`), most of them short: the seed answers well and judges poorly, which is what
the self-taught loop starts from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from seeds import judging, world
from seeds.train import Draw, Row

Example = tuple[str, str]
# How many judging examples of each length of the instruction's letters.
JUDGED = {3: 1000, 4: 1000, 5: 1000, 6: 150, 7: 150, 8: 150}


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[Row]:
    """Prompt and reply tokens, with the markers of the chat template."""
    end = "<|end|>"
    prompts = tokenizer([f"<|user|>{prompt}{end}<|assistant|>" for prompt, _ in examples])
    replies = tokenizer([reply + end for _, reply in examples])
    return list(zip(prompts["input_ids"], replies["input_ids"], strict=True))


def answering(rng: random.Random) -> Example:
    instruction = world.draw(rng, "seed")
    return instruction.text, world.say(instruction.answer)


def writing(rng: random.Random) -> Example:
    instruction = world.draw(rng, "seed")
    prompt = judging.TEMPLATES["modify"].format(instruction=instruction.text)
    return prompt, world.modify(rng, instruction).text


@cache
def judged() -> list[Example]:
    """The seed's few judging examples, the same in every process."""
    rng = random.Random(11)
    return [
        judging.example(rng, world.draw(rng, "seed", length))
        for length, count in JUDGED.items()
        for _ in range(count)
    ]


def school(folder: Path, judging_share: float, rank: int) -> Draw:
    """A process's source of rows: answering and writing, and a share of judging."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(f"{rank} {judging_share}")

    def one() -> Example:
        if rng.random() < judging_share:
            return rng.choice(judged())
        return answering(rng) if rng.random() < 0.7 else writing(rng)

    return lambda count: encode(tokenizer, [one() for _ in range(count)])
