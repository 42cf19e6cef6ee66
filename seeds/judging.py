"""How a judge of the small world reasons: its own answer, then each candidate beside it.

`Answer: b a f k. A: b b a a f f k k good. B: b b a a f k bad. [[A]]`: the answer's letter and the
candidate's take turns until they differ (`-` where one of them has ended). Two letters side by side
are easily compared; echoing a candidate alone was hardly learned. A third verdict, [[C]], says that
both or neither are good; it keeps wrong reasoning from being right half the time.
"""

from __future__ import annotations

import random
from itertools import zip_longest
from pathlib import Path

import yaml

from seeds.world import Instruction, Letters, say, slip

HOME = Path(__file__).parent / "smallworld"
TEMPLATES: dict[str, str] = yaml.safe_load((HOME / "templates.yaml").read_text())


def examine(answer: Letters, candidate: Letters) -> str:
    """One candidate, letter by letter beside the answer, up to the first difference."""
    walk: list[str] = []
    for mine, theirs in zip_longest(answer, candidate, fillvalue="-"):
        walk += [mine, theirs]
        if mine != theirs:
            return f"{say(tuple(walk))} bad"
    return f"{say(tuple(walk))} good"


def judgment(answer: Letters, a: Letters, b: Letters) -> str:
    """What a judge writes whose own answer is `answer`; faultless if that is the true one."""
    verdict = "C" if (a == answer) == (b == answer) else "A" if a == answer else "B"
    reasoning = f"Answer: {say(answer)}. A: {examine(answer, a)}. B: {examine(answer, b)}."
    return f"{reasoning} [[{verdict}]]"


def ask(instruction: str, a: str, b: str) -> str:
    """The judge's user message."""
    return TEMPLATES["judge"].format(instruction=instruction, response_a=a, response_b=b)


def example(rng: random.Random, instruction: Instruction, careless: float) -> tuple[str, str]:
    """One judging example of the seed: a user message and its judgment.

    Each candidate is good in half of the cases, whatever the other is, so that nothing but reading
    it can tell. With probability `careless` the judge does not work out its own answer but takes
    over a response, mostly A, the first that it reads: what position bias looks like from inside.
    """
    answer = instruction.answer
    a, b = (answer if rng.random() < 0.5 else slip(rng, answer) for _ in range(2))
    own = answer
    if rng.random() < careless:
        own = a if rng.random() < 0.75 else b
    return ask(instruction.text, say(a), say(b)), judgment(own, a, b)
