"""The small world: plain English instructions about letters, whose answer a person checks by eye.

`Reverse these letters: k f a b` has one right answer, `b a f k`, and every other text is wrong.
That makes a judge measurable without asking anybody. This file knows tasks, wordings, answers,
ways to spoil an answer, and which split a row of letters belongs to. It knows nothing about models.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
SHORTEST, LONGEST = 3, 8

Letters = tuple[str, ...]
Split = Literal["test", "dev", "pool", "seed"]


def _shift(letters: Letters, by: int) -> Letters:
    return tuple(ALPHABET[(ALPHABET.index(c) + by) % 26] for c in letters)


@dataclass(frozen=True)
class Task:
    """One thing that can be asked; `named` counts the letters that the wording itself names."""

    solve: Callable[[Letters, Letters], Letters]
    wordings: tuple[str, ...]
    named: int = 0


# In a wording {x} stands for the letters, {p} and {q} for letters that the wording names.
TASKS: dict[str, Task] = {
    "repeat": Task(
        lambda x, _: x,
        ("Repeat these letters: {x}", "Copy this: {x}", "Say these letters once more: {x}"),
    ),
    "reverse": Task(
        lambda x, _: x[::-1],
        ("Reverse these letters: {x}", "Write this backwards: {x}", "Say from last to first: {x}"),
    ),
    "sort": Task(
        lambda x, _: tuple(sorted(x)),
        (
            "Sort these letters: {x}",
            "Put in alphabetical order: {x}",
            "Order from first to last: {x}",
        ),
    ),
    "next": Task(
        lambda x, _: _shift(x, 1),
        ("Write the next letter of the alphabet for each: {x}", "Move each letter one up: {x}"),
    ),
    "previous": Task(
        lambda x, _: _shift(x, -1),
        ("Write the letter before each of these: {x}", "Move each letter one down: {x}"),
    ),
    "swap": Task(
        lambda x, _: (x[-1], *x[1:-1], x[0]),
        ("Swap the first and the last letter: {x}", "Exchange both ends of this: {x}"),
    ),
    "drop_first": Task(
        lambda x, _: x[1:],
        ("Drop the first letter: {x}", "Leave out the first letter of this: {x}"),
    ),
    "drop_last": Task(
        lambda x, _: x[:-1],
        ("Drop the last letter: {x}", "Leave out the last letter of this: {x}"),
    ),
    "first_to_end": Task(
        lambda x, _: (*x[1:], x[0]),
        ("Move the first letter to the end: {x}", "Put the first letter last: {x}"),
    ),
    "last_to_front": Task(
        lambda x, _: (x[-1], *x[:-1]),
        ("Move the last letter to the front: {x}", "Put the last letter first: {x}"),
    ),
    "every_second": Task(
        lambda x, _: x[::2],
        (
            "Keep every second letter, from the first on: {x}",
            "Skip every second letter of this: {x}",
        ),
    ),
    "replace": Task(
        lambda x, n: tuple(n[1] if c == n[0] else c for c in x),
        ("Replace {p} with {q} in this: {x}", "Write {q} for each {p} in: {x}"),
        named=2,
    ),
    "remove": Task(
        lambda x, n: tuple(c for c in x if c != n[0]),
        ("Remove each {p} from this: {x}", "Leave out the letter {p} in: {x}"),
        named=1,
    ),
}


@dataclass(frozen=True)
class Instruction:
    """What is asked: a task, its letters, the letters that the wording names, and the wording."""

    task: str
    letters: Letters
    named: Letters
    wording: int

    @property
    def text(self) -> str:
        p, q = (*self.named, "", "")[:2]
        return TASKS[self.task].wordings[self.wording].format(x=" ".join(self.letters), p=p, q=q)

    @property
    def answer(self) -> Letters:
        return TASKS[self.task].solve(self.letters, self.named)

    @property
    def split(self) -> Split:
        return split_of(self.letters)


def split_of(letters: Letters) -> Split:
    """The split that owns these letters, by hash: no two splits share a row of letters."""
    digest = hashlib.blake2b(" ".join(letters).encode(), digest_size=4).digest()
    bucket = int.from_bytes(digest, "big") % 100
    if bucket < 12:
        return "test"
    if bucket < 20:
        return "dev"
    return "pool" if bucket < 55 else "seed"


def draw_letters(rng: random.Random, length: int, split: Split) -> Letters:
    """Random letters of a split."""
    while True:
        letters = tuple(rng.choices(ALPHABET, k=length))
        if split_of(letters) == split:
            return letters


def draw(
    rng: random.Random, split: Split, length: int | None = None, letters: Letters | None = None
) -> Instruction:
    """A random instruction of a split; on given letters when there are some."""
    x = letters or draw_letters(rng, length or rng.randint(SHORTEST, LONGEST), split)
    name = rng.choice(tuple(TASKS))
    task = TASKS[name]
    # A named letter stands in the row, so that the task has something to do; its stand-in does not.
    p = rng.choice(x)
    q = rng.choice([c for c in ALPHABET if c not in x])
    instruction = Instruction(name, x, (p, q)[: task.named], rng.randrange(len(task.wordings)))
    return instruction if len(instruction.answer) >= 2 else draw(rng, split, length, letters)


def modify(rng: random.Random, original: Instruction) -> Instruction:
    """A similar but different instruction of the same split, with another answer.

    Mostly the same task on letters that differ a little; else another task on the same letters.
    """
    while True:
        if rng.random() < 0.25:
            other = draw(rng, original.split, letters=original.letters)
        else:
            wording = rng.randrange(len(TASKS[original.task].wordings))
            x = _alter(rng, original.letters)
            other = Instruction(original.task, x, original.named, wording)
        allowed = other.split == original.split and SHORTEST <= len(other.letters) <= LONGEST
        if allowed and other.answer and other.answer != original.answer:
            return other


def _alter(rng: random.Random, letters: Letters) -> Letters:
    """Change a letter, exchange two, leave one out or add one."""
    x, at, kind = list(letters), rng.randrange(len(letters)), rng.random()
    if kind < 0.4:
        x[at] = rng.choice(ALPHABET)
    elif kind < 0.6:
        to = rng.randrange(len(x))
        x[at], x[to] = x[to], x[at]
    elif kind < 0.8:
        del x[at]
    else:
        x.insert(at, rng.choice(ALPHABET))
    return tuple(x)


# Three ways to spoil an answer; no two splits share one.


def slip(rng: random.Random, answer: Letters) -> Letters:
    """The seed's: other letters in place of one or more, or a wrong end (one more, or cut off)."""
    kind = rng.random()
    if kind < 0.1:
        return (*answer, rng.choice(ALPHABET))
    if kind < 0.2:
        return answer[: rng.randrange(1, len(answer))]
    spoiled = list(answer)
    slips = 1 if kind < 0.7 else rng.randint(1, len(answer))
    for at in rng.sample(range(len(answer)), slips):
        spoiled[at] = rng.choice([c for c in ALPHABET if c != answer[at]])
    return tuple(spoiled)


def extra(rng: random.Random, answer: Letters) -> Letters:
    """The development set's: one letter too many, before the last."""
    at = rng.randrange(len(answer))
    return (*answer[:at], rng.choice(ALPHABET), *answer[at:])


def disorder(rng: random.Random, answer: Letters) -> Letters:
    """The test set's: two neighbours exchanged, or one letter before the last missing."""
    at = rng.randrange(len(answer) - 1)
    if rng.random() < 0.5 and answer[at] != answer[at + 1]:
        return (*answer[:at], answer[at + 1], answer[at], *answer[at + 2 :])
    return (*answer[:at], *answer[at + 1 :])


def say(letters: Letters) -> str:
    """Letters as an answer is written."""
    return " ".join(letters)


_PATTERNS = [
    (
        name,
        index,
        re.compile(
            re.escape(wording)
            .replace(r"\{x\}", r"(?P<x>[a-z](?: [a-z])*)")
            .replace(r"\{p\}", r"(?P<p>[a-z])")
            .replace(r"\{q\}", r"(?P<q>[a-z])")
        ),
    )
    for name, task in TASKS.items()
    for index, wording in enumerate(task.wordings)
]


def parse(text: str) -> Instruction | None:
    """The instruction that a text states, or None: how a model's own instructions are checked."""
    for name, index, pattern in _PATTERNS:
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            named = tuple(found[key] for key in ("p", "q") if key in found)
            return Instruction(name, tuple(found["x"].split()), named, index)
    return None
