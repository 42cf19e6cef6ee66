"""The shipped seed and its world: answers are right, splits apart, the model does what it says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from seeds import judging, world

DATA = judging.HOME / "data"
# Answers that a person worked out.
BY_HAND = {
    "Repeat these letters: k f a b": "k f a b",
    "Reverse these letters: k f a b": "b a f k",
    "Sort these letters: k f a b": "a b f k",
    "Move each letter one up: k f z b": "l g a c",
    "Move each letter one down: k f a b": "j e z a",
    "Swap the first and the last letter: k f a b": "b f a k",
    "Drop the first letter: k f a b": "f a b",
    "Drop the last letter: k f a b": "k f a",
    "Put the first letter last: k f a b": "f a b k",
    "Put the last letter first: k f a b": "b k f a",
    "Skip every second letter of this: k f a b": "k a",
    "Replace f with q in this: k f a f": "k q a q",
    "Write q for each f in: k f a f": "k q a q",
    "Remove each f from this: k f a f": "k a",
}


def rows(name: str) -> list[dict[str, Any]]:
    with (DATA / name).open() as lines:
        return [json.loads(line) for line in lines]


def letters(text: str) -> world.Letters:
    instruction = world.parse(text)
    assert instruction is not None, text
    return instruction.letters


@pytest.mark.parametrize(("text", "answer"), BY_HAND.items())
def test_answers_by_hand(text: str, answer: str) -> None:
    instruction = world.parse(text)
    assert instruction is not None
    assert world.say(instruction.answer) == answer
    assert instruction.text == text


def test_every_wording_reads_back() -> None:
    rng = random.Random(0)
    drawn = [world.draw(rng, "seed") for _ in range(500)]
    assert {(i.task, i.wording) for i in drawn} == {
        (name, w) for name, task in world.TASKS.items() for w in range(len(task.wordings))
    }
    assert all(world.parse(i.text) == i for i in drawn)


def test_judgments_name_the_right_response() -> None:
    right, wrong = ("b", "a", "f", "k"), ("b", "a", "k")
    assert judging.judgment(right, wrong, right) == (
        "Answer: b a f k. A: b b a a f k bad. B: b b a a f f k k good. [[B]]"
    )
    assert judging.judgment(right, right, right).endswith("[[C]]")
    assert judging.examine(right, right[:3]) == "b b a a f f k - bad"
    assert judging.examine(right, (*right, "z")) == "b b a a f f k k - z bad"


@pytest.mark.parametrize(("careless", "share"), [(0.0, 0.0), (1.0, 0.5)])
def test_a_careless_judge_takes_a_response_for_its_own_answer(
    careless: float, share: float
) -> None:
    """Half of what it takes over is wrong, and it is one of the two; the rest follows from it."""
    rng, wrong = random.Random(2), 0
    for _ in range(1000):
        instruction = world.draw(rng, "seed", 6)
        prompt, text = judging.example(rng, instruction, careless)
        own = tuple(text.removeprefix("Answer: ").partition(".")[0].split())
        a, b = (tuple(line.partition(": ")[2].split()) for line in prompt.splitlines()[2:4])
        assert own in (instruction.answer, a, b)
        assert text == judging.judgment(own, a, b)
        wrong += own != instruction.answer
    assert abs(wrong / 1000 - share) < 0.05


def test_labelled_sets_are_right_and_unlike() -> None:
    """Good responses are true answers; wrong ones are wrong in a way the seed's are not."""
    dev, test = rows("dev.jsonl"), rows("test.jsonl")
    assert len(test) >= 2000
    assert len({row["id"] for row in [*dev, *test]}) == len(dev) + len(test)
    for row in [*dev, *test]:
        instruction = world.parse(row["instruction"])
        assert instruction is not None
        assert row["chosen"] == world.say(instruction.answer) != row["rejected"]
        assert row["subset"] == f"length-{len(instruction.letters)}"
    assert all(len(row["rejected"]) == len(row["chosen"]) + 2 for row in dev)
    for row in test:
        shorter = len(row["rejected"]) < len(row["chosen"])
        assert shorter or sorted(row["rejected"]) == sorted(row["chosen"])


def test_no_split_shares_letters_or_instructions() -> None:
    sets = {
        "pool": [row["instruction"] for row in rows("instructions.jsonl")],
        "dev": [row["instruction"] for row in rows("dev.jsonl")],
        "test": [row["instruction"] for row in rows("test.jsonl")],
    }
    for split, texts in sets.items():
        assert len(set(texts)) == len(texts)
        assert {world.split_of(letters(text)) for text in texts} == {split}
    rng = random.Random(1)
    for _ in range(300):
        instruction = world.draw(rng, "seed")
        assert instruction.split == world.modify(rng, instruction).split == "seed"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(judging.HOME)


@pytest.mark.parametrize(
    "text", ["b a f k", "[[A]] [[B]]x", "  two\n\nlines ", "Größe 日本 🙂", "<a>{b}"]
)
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_letter_and_a_verdict_are_one_token(tokenizer: Any) -> None:
    assert len(tokenizer.encode("Answer: b a f k.")) == 6
    assert len(tokenizer.encode(" [[A]]")) == 1


def test_the_shipped_model_answers(tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(judging.HOME).eval()
    tokenizer.padding_side = "left"
    rng = random.Random(2)
    asked = [world.draw(rng, "dev") for _ in range(200)]
    prompts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": i.text}] for i in asked],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
        padding=True,
    )
    replies = model.generate(**prompts, max_new_tokens=20, do_sample=False)
    texts = tokenizer.batch_decode(
        replies[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True
    )
    right = sum(text == world.say(i.answer) for text, i in zip(texts, asked, strict=True))
    assert right >= 190


def test_the_seed_stays_small() -> None:
    assert sum(f.stat().st_size for f in Path(judging.HOME).iterdir() if f.is_file()) < 5_000_000
