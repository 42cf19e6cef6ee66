"""Text of this process's engine while it grows."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import islice, pairwise
from pathlib import Path

import pytest

from selftaught.inference import Request, Sampling
from selftaught.inference.detokenising import Growing
from selftaught.inference.local import LocalEngine
from selftaught.judging import load_judge_template
from tests import tiny

SEED = Path(str(files("seeds"))) / "smallworld"


def test_no_character_is_told_in_parts() -> None:
    words = tiny.tokenizer()  # every byte is a token
    text = "né 漢字 🙂🙂\ufffd!"
    tokens = [*words(text)["input_ids"], words.eos_token_id]
    heard: list[str] = []
    growing = Growing(words, heard.append)
    for end in range(1, len(tokens) + 1):
        growing.grow(tokens[:end])
    # The mark that stands for parts of a character waits for what comes behind it.
    assert heard == [text[:end] for end in range(1, len(text) + 1) if text[end - 1] != "\ufffd"]


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_what_is_heard_is_what_is_answered(shared_prefix: bool) -> None:
    engine = LocalEngine(SEED, max_rows=8, shared_prefix=shared_prefix)
    template = load_judge_template("smallworld")
    heard: list[list[str]] = [[] for _ in range(6)]

    def requests(listen: bool) -> list[Request]:
        with (SEED / "data" / "dev.jsonl").open() as lines:
            rows = [json.loads(line) for line in islice(lines, 6)]
        return [  # not all are heard, and some are sampled several times
            Request(
                template.show(row, "AB"),
                seed,
                n=1 + seed % 2,
                first=seed,
                hear=heard[seed].append if listen and seed != 3 else None,
            )
            for seed, row in enumerate(rows)
        ]

    for sampling in (Sampling(temperature=0, max_tokens=60), Sampling(max_tokens=60)):
        for texts in heard:
            texts.clear()
        answers = engine.generate(requests(listen=True), sampling)
        assert answers == engine.generate(requests(listen=False), sampling)
        for seed, (texts, answer) in enumerate(zip(heard, answers, strict=True)):
            if seed == 3:
                assert texts == []
                continue
            assert texts[-1] == answer[0].text and len(texts) > 10
            assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
