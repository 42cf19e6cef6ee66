"""An evaluation's questions and scores, with a judge whose every answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from selftaught.artifacts import Writer
from selftaught.benchmarks.base import Example
from selftaught.benchmarks.catalogue import BENCHMARKS
from selftaught.contracts import EvaluationSettings
from selftaught.inference import Completion, Request, Sampling
from selftaught.judging import Verdict, load_judge_template
from services.evaluator.evaluation import Templates, as_json, ask, asked_with, read_examples, scores

TEMPLATES = Templates(load_judge_template("mt-bench"))
GREEDY = Sampling(temperature=0, max_tokens=9)


def settings(**change: Any) -> EvaluationSettings:
    given = {
        "version": "v", "ref": "m:0", "benchmark": "pairs", "labelled": False,
        "dataset_sha256": "x", "scoring": ["strict", "official"], "template": "mt-bench",
        "template_sha256": "x", "votes": 1, "seed": 0, "limit": None, "max_tokens": 9,
    }  # fmt: skip
    return EvaluationSettings.model_validate({**given, **change})


class Judge:
    """Says what `verdict` answers to the text it is shown; cannot take a text with "long"."""

    def __init__(self, verdict: Any) -> None:
        self.verdict, self.asked = verdict, 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        self.asked += len(requests)
        out = []
        for request in requests:
            text = request.messages[-1]["content"]
            if "long" in text:
                out.append([Completion("", "rejected", 99, 0)] * request.n)
            else:
                said = [self.verdict(text, vote) for vote in range(request.n)]
                out.append([Completion(one, "stop", 5, 2) for one in said])
        return out

    def close(self) -> None: ...


def prefers_good(text: str, vote: int) -> str:
    return "[[A]]" if text.index("good") < text.index("bad") else "[[B]]"


def pair(name: str, instruction: str = "i") -> Example:
    return Example(name, instruction, ("good", "bad"), Verdict.A)


def run(judge: Judge, examples: list[Example], asked: EvaluationSettings) -> Any:
    benchmark = BENCHMARKS[asked.benchmark]
    rows, counts = ask(examples, benchmark, judge, TEMPLATES, asked, GREEDY)
    found = scores(examples, rows, benchmark, TEMPLATES, asked)
    return {one.scoring: one for one in found}, counts


def test_both_scorings_share_their_answers() -> None:
    judge = Judge(prefers_good)
    found, counts = run(judge, [pair("1"), pair("2", "long")], settings())
    assert judge.asked == 4, "two orders each; official's one order is among them"
    assert counts["too_long"] == 2 and counts["tokens"] == 4 and counts["answers"] == 4
    assert found["strict"].figures["overall"].value == 0.5
    assert found["official"].figures["overall"].value == 0.75, "no verdict counts half"
    alone = Judge(prefers_good)
    run(alone, [pair("1"), pair("2")], settings(scoring=["official"]))
    assert alone.asked == 2


def test_the_majority_of_the_votes_with_a_verdict_counts() -> None:
    said = ["[[A]]", "no", "[[A]]", "[[B]]"]
    always_first = Judge(lambda text, vote: said[vote])
    found, counts = run(always_first, [pair("1")], settings(votes=4, scoring=["strict"]))
    assert counts["answers"] == 8
    assert found["strict"].figures["accuracy_winner_first"].value == 1.0
    assert found["strict"].figures["accuracy_winner_last"].value == 0.0


def test_rewardbench2_is_asked_for_the_best_of_four_and_for_ratings() -> None:
    four = Example("1", "i", ("right", "w1", "w2", "w3"), 1, "Math")
    ties = [Example(f"{kind}:1", "i", ("right", "w1"), 1, "Ties") for kind in ("ref", "tied")]

    def says(text: str, vote: int) -> str:
        if "[Start of response D]" in text:
            shown = text.split("[Start of response ")[1:]
            place = next(place for place, part in enumerate(shown) if "right" in part)
            return f"[[{'ABCD'[place]}]]"
        return "9" if "right" in text else "2"

    asked = settings(benchmark="rewardbench2", scoring=["official"])
    found, counts = run(Judge(says), [four, *ties], asked)
    assert counts["answers"] == 1 + 4
    assert found["official"].figures["subset/Math"].value == 1.0
    # 0.30 tied + 0.30 reference + 0.20 (margin 7 > spread 0) + 0.20 + 0.01 * tanh(7/0 - 1)
    assert found["official"].figures["subset/Ties"].value == pytest.approx(1.01)


def test_examples_come_back_as_they_were_written(tmp_path: Path) -> None:
    given = [
        pair("a"),
        Example("b", "i", ("x", "y"), (Verdict.A, Verdict.TIE), "turn 1"),
        Example("c", "i", ("x", "y", "z", "w"), 1, "Math"),
    ]
    assert [Example.from_row(one.to_row() | {}) for one in given] == given


def test_a_limit_draws_the_same_examples_every_time(database: Any) -> None:
    with Writer("dataset", "datasets/limit.jsonl") as writer:
        for number in range(50):
            writer.write(pair(str(number)).to_row())
        writer.publish()
    from selftaught.artifacts import resolve

    path = resolve("datasets/limit.jsonl")
    ids = [one.id for one in read_examples(path, settings(limit=10))]
    assert len(ids) == 10 and ids == sorted(ids, key=int)
    assert ids == [one.id for one in read_examples(path, settings(limit=10))]
    assert ids != [one.id for one in read_examples(path, settings(limit=10, seed=1))]
    assert len(read_examples(path, settings())) == 50


def test_a_score_names_the_template_that_was_asked_with() -> None:
    plain = {"name": "mt-bench", "sha256": settings().template_sha256}
    assert asked_with(settings(), "official") == plain
    assert asked_with(settings(benchmark="rewardbench2"), "strict") == plain
    own = asked_with(settings(benchmark="rewardbench2"), "official")
    assert own["name"] == "best-of-four + rating" and len(own["sha256"]) == 64


def test_a_score_as_json_keeps_the_order_of_its_figures() -> None:
    found, _ = run(Judge(prefers_good), [pair("1")], settings())
    names = [one["name"] for one in as_json(found["strict"], settings())["figures"]]
    assert names[0] == "overall" and len(names) == len(set(names)) > 5
