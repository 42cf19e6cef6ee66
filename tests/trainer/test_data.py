"""Training data: loss on the judgment only, equal tokens a step, every example in every epoch."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.data import (
    IGNORED,
    BadData,
    Example,
    Preference,
    collate,
    count_steps,
    micro_batches,
    steps,
    tokenise,
    tokenise_preferences,
    tokens,
)
from tests import tiny

WORDS = tiny.tokenizer()


def row(prompt: str, completion: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def examples(*lengths: int) -> list[Example]:
    return [Example(list(range(1, n + 1)), prompt=n // 2) for n in lengths]


def test_loss_falls_on_judgment_and_end_token_only() -> None:
    # A special token inside a message's content is text, not a token.
    [example], _ = tokenise([row("ask <|end|>", "A wins [[A]]")], WORDS, 500)
    ids, labels = collate([example, *examples(2)])
    assert WORDS.decode(ids[0]) == "<|user|>ask < |end|><|end|><|assistant|>A wins [[A]]<|end|>"
    learned = labels[0] != IGNORED
    assert WORDS.decode(ids[0][learned]) == "A wins [[A]]<|end|>"
    assert labels[0][learned].equal(ids[0][learned])
    assert labels[1].tolist()[:2] == [IGNORED, 2]
    assert (labels[1][2:] == IGNORED).all()


def test_the_prompt_is_what_the_judge_saw_when_it_was_sampled() -> None:
    messages = row("ask", "x")["prompt"]
    shown = WORDS.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    sampled = WORDS(shown, add_special_tokens=False)["input_ids"]
    [example], _ = tokenise([row("ask", "x")], WORDS, 500)
    assert example.ids[: example.prompt] == sampled


def test_longer_examples_are_left_out_and_counted() -> None:
    kept, too_long = tokenise([row("a", "b"), row("a" * 50, "b")], WORDS, 20)
    assert (len(kept), too_long) == (1, 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([row("a", "b"), {"prompt": []}], "row 2"),
        ([row("a", "")], "row 1: the judgment is empty"),
        ([{**row("a", "b"), "completion": []}], "row 1"),
        ([], "no training examples"),
        ([row("a" * 500, "b")], "1 were too long"),
    ],
)
def test_bad_rows_name_themselves(bad: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadData, match=message):
        tokenise(bad, WORDS, 100)


def preference(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    said = {"chosen": chosen, "rejected": rejected}
    messages = {k: [{"role": "assistant", "content": text}] for k, text in said.items()}
    return {"prompt": row(prompt, "")["prompt"], **messages}


def test_both_sides_of_a_preference_are_rendered_like_an_example() -> None:
    [pair], _ = tokenise_preferences([preference("ask", "yes [[A]]", "no [[B]]")], WORDS, 500)
    alone, _ = tokenise([row("ask", "yes [[A]]"), row("ask", "no [[B]]")], WORDS, 500)
    assert [pair.chosen, pair.rejected] == alone
    assert tokens(pair) == len(alone[0].ids) + len(alone[1].ids)


def test_a_preference_with_one_side_too_long_is_left_out_and_bad_ones_name_themselves() -> None:
    rows = [preference("a", "b", "c"), preference("a", "b", "c" * 50)]
    kept, too_long = tokenise_preferences(rows, WORDS, 20)
    assert (len(kept), too_long) == (1, 1)
    with pytest.raises(BadData, match="row 2"):
        tokenise_preferences([rows[0], row("a", "b")], WORDS, 100)
    with pytest.raises(BadData, match="row 1: the judgment is empty"):
        tokenise_preferences([preference("a", "b", "")], WORDS, 100)


def test_micro_batches_of_preferences_count_both_sides() -> None:
    pairs = [Preference(*examples(n, n + 2)) for n in (4, 9, 5, 30, 6)]
    batches = list(micro_batches(pairs, 32))
    assert [[len(p.rejected.ids) for p in batch] for batch in batches] == [[6, 7], [8], [11], [32]]


@pytest.mark.parametrize(("epochs", "expected"), [(1, 6), (0.5, 3), (2, 12), (0.01, 1)])
def test_epochs_become_steps(epochs: float, expected: int) -> None:
    data = examples(*([10] * 30))  # five a step
    assert count_steps(data, 50, seed=1, epochs=epochs) == expected


def test_every_epoch_sees_every_example_once_in_a_new_order() -> None:
    data = examples(*range(3, 23))
    total = sum(len(e.ids) for e in data)
    taken = [e for batch in islice(steps(data, 50, seed=1), 20) for e in batch]
    epochs = [[len(e.ids) for e in taken[start : start + 20]] for start in (0, 20)]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(range(3, 23))
    assert epochs[0] != epochs[1]
    assert total == 250


def test_steps_have_about_equal_tokens_also_across_epochs() -> None:
    data = examples(*([7] * 30))
    for batch in islice(steps(data, 100, seed=1), 30):
        assert 100 <= sum(len(e.ids) for e in batch) < 107


def test_order_follows_the_seed() -> None:
    def order(seed: int) -> list[int]:
        return [len(e.ids) for b in islice(steps(examples(*range(2, 40)), 60, seed), 5) for e in b]

    assert order(1) == order(1) != order(2)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=40), st.integers(30, 200))
def test_micro_batches_hold_everything_within_the_limit(lengths: list[int], most: int) -> None:
    batches = list(micro_batches(examples(*lengths), most))
    assert sorted(len(e.ids) for batch in batches for e in batch) == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or max(len(e.ids) for e in batch) * len(batch) <= most
