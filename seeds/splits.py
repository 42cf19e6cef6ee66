"""The data files: instructions without labels for the loop, labelled pairs to measure it.

Splits own their rows of letters by hash (`world.split_of`), so that no instruction, and not even
its letters, stands in two of them; the seed was raised on a fourth share. Only development and
test pairs have labels, and each spoils its answers in a way of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from seeds import world
from seeds.world import Instruction, Letters, Split

Spoil = Callable[[random.Random, Letters], Letters]
LENGTHS = range(world.SHORTEST, world.LONGEST + 1)


def distinct(rng: random.Random, split: Split, count: int) -> list[Instruction]:
    """Different instructions of a split, every length equally often."""
    found: dict[str, Instruction] = {}
    while len(found) < count:
        length = LENGTHS[len(found) % len(LENGTHS)]
        instruction = world.draw(rng, split, length)
        found.setdefault(instruction.text, instruction)
    return list(found.values())


def pairs(rng: random.Random, split: Split, count: int, spoil: Spoil) -> Iterable[dict[str, Any]]:
    """Labelled pairs: the true answer and the same answer spoiled."""
    for number, instruction in enumerate(distinct(rng, split, count)):
        answer = instruction.answer
        wrong = spoil(rng, answer)
        while wrong == answer:
            wrong = spoil(rng, answer)
        yield {
            "id": f"{split}-{number:04}-{instruction.task}",
            "instruction": instruction.text,
            "chosen": world.say(answer),
            "rejected": world.say(wrong),
            "subset": f"length-{len(instruction.letters)}",
        }


def write(folder: Path) -> None:
    """Write all data files."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = distinct(random.Random(21), "pool", 20_000)
    random.Random(24).shuffle(pool)
    unlabelled = (
        {"id": f"x{number:05}", "instruction": instruction.text}
        for number, instruction in enumerate(pool)
    )
    files: dict[str, Iterable[dict[str, Any]]] = {
        "instructions.jsonl": unlabelled,
        "dev.jsonl": pairs(random.Random(22), "dev", 600, world.extra),
        "test.jsonl": pairs(random.Random(25), "test", 2_400, world.disorder),
    }
    for name, lines in files.items():
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        (folder / name).write_text(text)
