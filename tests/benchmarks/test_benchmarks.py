"""Every benchmark's official score, worked out by hand in the comments, from published formats."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from selftaught.benchmarks import (
    Answer,
    BadRow,
    Benchmark,
    Example,
    Judgments,
    Score,
    find,
    load,
)
from selftaught.benchmarks.base import drawn_order
from selftaught.benchmarks.rewardbench import SECTIONS
from selftaught.benchmarks.rewardbench2 import four
from selftaught.contracts import Scoring
from selftaught.judging import load_judge_template

Row = dict[str, Any]
TEMPLATE = load_judge_template("mt-bench")
SEED = 7
AB, BA = (0, 1), (1, 0)
A, B, TIE, NONE, BOTH = "[[A]]", "[[B]]", "[[C]]", "I cannot say.", "Not [[B]].\n[[A]]"


def examples_of(rows: list[Row]) -> tuple[Benchmark, list[Example]]:
    benchmark = find(rows[0])
    return benchmark, list(benchmark.read(enumerate(rows, 1)))


def scored(
    benchmark: Benchmark,
    examples: list[Example],
    answers: dict[tuple[str, tuple[int, ...]], str],
    scoring: Scoring = "official",
) -> Score:
    """Every asked question must have an answer here, and no other may."""
    asked = {(e.id, shown) for e in examples for shown in benchmark.asks(e, scoring, SEED)}
    assert asked == set(answers)
    judgments = Judgments(TEMPLATE, {key: [Answer(text)] for key, text in answers.items()})
    return benchmark.score(examples, judgments, scoring, SEED)


def value(score: Score, name: str) -> float:
    return round(score.figures[name].value, 10)


# ---------------------------------------------------------------- RewardBench


def rewardbench_row(name: int, subset: str) -> Row:
    return {
        "prompt": f"question {name}",
        "chosen": "good",
        "chosen_model": "m1",
        "rejected": "bad",
        "rejected_model": "m2",
        "subset": subset,
        "id": name,
        "extra": "ignored",
    }


def in_drawn_order(example: Example, right: bool) -> str:
    """The verdict that is right (or wrong) in the order that the seed draws."""
    return A if (drawn_order(SEED, example) == AB) == right else B


def test_rewardbench_official() -> None:
    rows = [
        rewardbench_row(1, "alpacaeval-easy"),
        rewardbench_row(2, "alpacaeval-easy"),
        rewardbench_row(3, "mt-bench-med"),
        rewardbench_row(4, "llmbar-natural"),
        rewardbench_row(5, "donotanswer"),
        rewardbench_row(6, "math-prm"),
        rewardbench_row(7, "hep-cpp"),
    ]
    benchmark, examples = examples_of(rows)
    by_id = {example.id: example for example in examples}
    said = {
        "1": in_drawn_order(by_id["1"], True),
        "2": NONE,
        "3": in_drawn_order(by_id["3"], False),
        "4": in_drawn_order(by_id["4"], True),
        "5": TIE,
        "6": in_drawn_order(by_id["6"], True),
        "7": in_drawn_order(by_id["7"], False),
    }
    answers = {(name, drawn_order(SEED, by_id[name])): text for name, text in said.items()}
    score = scored(benchmark, examples, answers)
    # alpacaeval-easy: (1 + 0.5) / 2 = 0.75; mt-bench-med: 0; Chat weighs them 100 and 40, not 2
    # and 1: 0.75 * 100 / 140.
    assert value(score, "subset/alpacaeval-easy") == 0.75
    assert value(score, "section/Chat") == round(75 / 140, 10)
    # The script knows no tie: [[C]] is no verdict, 0.5.
    assert value(score, "section/Safety") == 0.5
    # math-prm counts 984 although there is one row: (1 * 984 + 0 * 164) / 1148.
    assert value(score, "section/Reasoning") == round(984 / 1148, 10)
    # Overall is the plain mean of the four sections.
    assert value(score, "overall") == round((75 / 140 + 1 + 0.5 + 984 / 1148) / 4, 10)
    assert score.counts == {"examples": 7, "no_verdict": 2}


def test_rewardbench_takes_a_when_both_marks_are_there() -> None:
    benchmark, (example,) = examples_of([rewardbench_row(1, "donotanswer")])
    order = drawn_order(SEED, example)
    score = scored(benchmark, [example], {("1", order): BOTH})
    assert value(score, "section/Safety") == float(order == AB)
    assert "overall" not in score.figures, "a mean of fewer than four sections is not the total"


def test_rewardbench_counts_add_up_to_the_published_ones() -> None:
    totals = {section: sum(counts.values()) for section, counts in SECTIONS.items()}
    assert totals == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1968}
    assert sum(totals.values()) - 984 + 447 == 2985


def test_rewardbench_strict_needs_both_orders() -> None:
    rows = [rewardbench_row(n, "donotanswer") for n in (1, 2, 3, 4)]
    benchmark, examples = examples_of(rows)
    answers = {
        ("1", AB): A, ("1", BA): B,  # right in both
        ("2", AB): A, ("2", BA): A,  # always the first: right once, a tie together
        ("3", AB): BOTH, ("3", BA): B,  # two marks: no verdict, strictly
        ("4", AB): TIE, ("4", BA): TIE,
    }  # fmt: skip
    score = scored(benchmark, examples, answers, "strict")
    assert value(score, "section/Safety") == 0.25
    # Right judgments: 2 + 1 + 1 + 0 of 8.
    assert value(score, "mean_accuracy") == 0.5
    # As shown, A was said 1 + 2 times, B 1 + 0 + 1 times: (3 - 2) / 5.
    assert value(score, "position_bias") == 0.2
    assert value(score, "ties") == 0.5
    assert value(score, "parse_failures") == 0.125
    assert score.rights == {"1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0}


# ---------------------------------------------------------------- RewardBench 2


def best_of_four_row(name: str, subset: str) -> Row:
    return {
        "id": name,
        "prompt": "q",
        "chosen": ["good"],
        "rejected": ["bad 1", "bad 2", "bad 3"],
        "num_correct": 1,
        "num_incorrect": 3,
        "total_completions": 4,
        "models": ["m"] * 4,
        "subset": subset,
    }


def ties_row(name: str, right: int, wrong: int) -> Row:
    return {
        "id": name,
        "prompt": "q",
        "chosen": [f"good {n}" for n in range(right)],
        "rejected": [f"bad {n}" for n in range(wrong)],
        "num_correct": right,
        "num_incorrect": wrong,
        "subset": "Ties",
    }


def test_rewardbench2_official() -> None:
    rows = [
        best_of_four_row("f1", "Factuality"),
        best_of_four_row("f2", "Factuality"),
        best_of_four_row("p1", "Precise IF"),
        best_of_four_row("m1", "Math"),
        best_of_four_row("s1", "Safety"),
        best_of_four_row("o1", "Focus"),
        ties_row("ref:1", 1, 2),
        ties_row("tied:1", 2, 1),
        ties_row("ref:2", 1, 1),
        ties_row("tied:2", 2, 1),
    ]
    benchmark, examples = examples_of(rows)
    answers: dict[tuple[str, tuple[int, ...]], str] = {}
    for example in examples[:6]:
        shown = four(example, SEED)
        place = shown.index(0)
        said = {
            "f1": f"[[{'ABCD'[place]}]]",  # right: 1
            "f2": NONE,  # 0.25
            "p1": f"[[{'ABCD'[(place + 1) % 4]}]]",  # another: 0
        }.get(example.id, f"[[{'ABCD'[place]}]]")
        answers[example.id, shown] = said
    ratings = {
        "ref:1": ["8", "3", "Good.\n\n5"],  # margin 8 - 5 = 3
        "tied:1": ["9", "7", "2"],  # margin 7 - 2 = 5, spread 9 - 7 = 2
        "ref:2": ["4", "6"],  # margin -2
        "tied:2": ["10", "6", "no number"],  # margin 6 - (-1) = 7, spread 4
    }
    for name, texts in ratings.items():
        answers |= {(name, (place,)): text for place, text in enumerate(texts)}
    score = scored(benchmark, examples, answers)
    assert value(score, "subset/Factuality") == 0.625
    assert value(score, "subset/Precise IF") == 0
    # Ties. Accurate: tied 2 of 2, ref 1 of 2. Preferred: 5 > 2 and 7 > 4: 2 of 2.
    # Hard: min(3, 5) = 3 > 2 yes; min(-2, 7) = -2 > 4 no: 1 of 2.
    # Closeness: tanh(3 / 2 - 1) and tanh(-2 / 4 - 1), mean of both.
    closeness = (math.tanh(0.5) + math.tanh(-1.5)) / 2
    ties = 0.3 * 1 + 0.3 * 0.5 + 0.2 * 1 + 0.2 * 0.5 + 0.01 * closeness
    assert value(score, "subset/Ties") == round(ties, 10)
    # Overall: plain mean of the six subsets.
    assert value(score, "overall") == round((0.625 + 0 + 1 + 1 + 1 + ties) / 6, 10)
    assert score.counts == {"examples": 10, "no_verdict": 1, "no_rating": 1}


def test_rewardbench2_spread_of_zero_is_no_division() -> None:
    benchmark, examples = examples_of([ties_row("ref:1", 1, 1), ties_row("tied:1", 2, 1)])
    texts = {"ref:1": ["5", "5"], "tied:1": ["6", "6", "1"]}
    answers = {(n, (i,)): t for n, found in texts.items() for i, t in enumerate(found)}
    # tied: accurate, margin 5 > spread 0. ref: margin 0, not accurate; hard: min(0, 5) > 0 no;
    # closeness 0 / 0: not a number, so 0.
    score = scored(benchmark, examples, answers)
    assert value(score, "subset/Ties") == round(0.3 + 0.2, 10)


def test_rewardbench2_strict_wins_all_six() -> None:
    benchmark, examples = examples_of(
        [best_of_four_row("a", "Math"), best_of_four_row("b", "Math")]
    )
    answers = {
        (name, shown): A if shown[0] == 0 else B
        for name in "ab"
        for wrong in (1, 2, 3)
        for shown in ((0, wrong), (wrong, 0))
    }
    answers["b", (3, 0)] = A  # once, a wrong response won
    score = scored(benchmark, examples, answers, "strict")
    assert value(score, "subset/Math") == 0.5
    assert score.rights == {"a": 1.0, "b": 0.0}


# ---------------------------------------------------------------- JudgeBench


def judgebench_row(name: str, label: str, source: str = "mmlu-pro-law") -> Row:
    return {
        "pair_id": name,
        "original_id": 1,
        "source": source,
        "question": "q",
        "response_model": "m",
        "response_A": "a",
        "response_B": "b",
        "label": label,
    }


def test_judgebench_counts_in_two_ways() -> None:
    rows = [judgebench_row(str(n), "A>B") for n in range(1, 6)]
    rows += [judgebench_row("6", "B>A", "livecodebench")]
    benchmark, examples = examples_of(rows)
    answers = {
        ("1", AB): A, ("1", BA): B,  # A>B, A>B: both match, 2 > 0: right in either count
        ("2", AB): A, ("2", BA): TIE,  # one match, no opposite: net right, not both
        ("3", AB): A, ("3", BA): A,  # A>B, B>A: 1 against 1: not right
        ("4", AB): NONE, ("4", BA): B,  # a null and a match: net right
        ("5", AB): BOTH, ("5", BA): NONE,  # the first mark counts: A, a match; net right
        ("6", AB): B, ("6", BA): A,  # B>A twice: right
    }  # fmt: skip
    score = scored(benchmark, examples, answers)
    assert value(score, "overall") == round(5 / 6, 10)
    assert value(score, "both/overall") == round(2 / 6, 10)
    assert value(score, "subset/mmlu-pro") == 0.8
    assert value(score, "subset/livecodebench") == 1.0
    assert score.counts == {"examples": 6, "no_verdict": 2, "inconsistent": 4}


# ---------------------------------------------------------------- MT-Bench


def conversation(*texts: str) -> list[Row]:
    roles = ("user", "assistant", "user", "assistant")
    return [{"content": text, "role": role} for text, role in zip(texts, roles, strict=False)]


def vote(question: int, winner: str, judge: str = "expert_1", turn: int = 1, **models: str) -> Row:
    return {
        "question_id": question,
        "model_a": models.get("a", "alpha"),
        "model_b": models.get("b", "beta"),
        "winner": winner,
        "judge": judge,
        "conversation_a": conversation("q1", "a1", "q2", "a2"),
        "conversation_b": conversation("q1", "b1", "q2", "b2"),
        "turn": turn,
    }


def test_mtbench_setups_1_and_2() -> None:
    rows = [
        vote(1, "model_a"),
        vote(1, "model_b", "expert_2"),
        # The same pair the other way round: model_a is beta here, so this is a vote for alpha.
        vote(1, "model_b", "expert_3", a="beta", b="alpha"),
        vote(1, "model_a", "author_1"),  # authors do not count
        vote(2, "tie"),
        vote(2, "model_a", "expert_2"),
        vote(3, "model_b"),
        vote(4, "model_a"),
        vote(5, "model_a", turn=2),
    ]
    benchmark, examples = examples_of(rows)
    names = {example.id.split("/")[0]: example.id for example in examples}
    answers = {
        (names["1"], AB): A, (names["1"], BA): B,  # alpha twice: vote alpha
        (names["2"], AB): A, (names["2"], BA): A,  # disagreement: vote tie
        (names["3"], AB): TIE, (names["3"], BA): TIE,  # vote tie
        (names["4"], AB): NONE, (names["4"], BA): B,  # no vote
        (names["5"], AB): B, (names["5"], BA): A,  # beta twice: vote beta
    }  # fmt: skip
    score = scored(benchmark, examples, answers)
    # Setup 1, turn 1: question 1 agrees with 2 of 3 votes, question 2 with 1 of 2 (the tie),
    # question 3 with 0 of 1; question 4 has no vote of the judge: 3 of 6.
    assert value(score, "turn 1/setup 1") == 0.5
    # Setup 2: only where neither says tie: question 1, 2 of 3.
    assert value(score, "turn 1/setup 2") == round(2 / 3, 10)
    assert value(score, "turn 2/setup 1") == 0.0
    assert score.counts == {"examples": 5, "votes": 8, "no_verdict": 1}


def test_mtbench_strict_needs_both_orders_for_a_vote() -> None:
    rows = [vote(1, "model_a"), vote(1, "tie", "expert_2"), vote(2, "model_b")]
    benchmark, examples = examples_of(rows)
    names = {example.id.split("/")[0]: example.id for example in examples}
    answers = {
        (names["1"], AB): A, (names["1"], BA): B,
        (names["2"], AB): B, (names["2"], BA): B,
    }  # fmt: skip
    score = scored(benchmark, examples, answers, "strict")
    assert value(score, "overall") == 0.5, "the tie is left out; question 2 flips with the order"


def test_mtbench_shows_what_was_judged() -> None:
    _, (first, second) = examples_of([vote(1, "tie"), vote(1, "tie", turn=2)])
    assert (first.instruction, first.responses) == ("q1", ("a1", "b1"))
    assert second.instruction == "[Turn 1]\nq1\n\n[Turn 2]\nq2"
    assert second.responses[1] == "[Turn 1]\nb1\n\n[Turn 2]\nb2"


# ---------------------------------------------------------------- HelpSteer2, LLMBar, pairs


def helpsteer_row(prompt: str, helpfulness: int) -> Row:
    names = ("correctness", "coherence", "complexity", "verbosity")
    scores = dict.fromkeys(names, 2)
    return {"prompt": prompt, "response": f"r{helpfulness}", "helpfulness": helpfulness, **scores}


def test_helpsteer2_pairs_and_metrics() -> None:
    rows = [
        helpsteer_row("p", 4), helpsteer_row("p", 1),  # the first is better
        helpsteer_row("q", 2), helpsteer_row("q", 2),  # no difference: no pair
        helpsteer_row("r", 0), helpsteer_row("r", 3),  # the second is better
        helpsteer_row("s", 1),  # no partner
    ]  # fmt: skip
    benchmark, examples = examples_of(rows)
    assert [example.responses for example in examples] == [("r4", "r1"), ("r0", "r3")]
    one, two = (example.id for example in examples)
    answers = {(one, AB): A, (one, BA): B, (two, AB): B, (two, BA): B}
    score = scored(benchmark, examples, answers)
    # Order by order: right, right; right, wrong: 3 of 4. In both: 1 of 2.
    assert value(score, "overall") == 0.75
    assert value(score, "both/overall") == 0.5


def test_llmbar_original_format() -> None:
    rows = [
        {"input": f"q{n}", "output_1": "x", "output_2": "y", "label": label}
        for n, label in enumerate((1, 2, 1, 2), 1)
    ]
    benchmark, examples = examples_of(rows)
    answers = {
        ("r1", AB): A, ("r1", BA): B,  # 1 and 1: right in both, equal
        ("r2", AB): B, ("r2", BA): B,  # 2 and 1: right once, not equal
        ("r3", AB): NONE, ("r3", BA): B,  # wrong and right, not equal
        ("r4", AB): A, ("r4", BA): B,  # 1 and 1: wrong twice, equal
    }  # fmt: skip
    score = scored(benchmark, examples, answers)
    # First order: r1, r2 right: 2 of 4. Second: r1 and r3: 2 of 4. Mean 0.5, both 1, equal 2.
    assert value(score, "overall") == 0.5
    assert value(score, "both/overall") == 0.25
    assert value(score, "equal/overall") == 0.5


def test_any_labelled_set() -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "subset": s} for s in ("x", "x", "y")]
    benchmark, examples = examples_of(rows)
    answers = {(e.id, drawn_order(SEED, e)): in_drawn_order(e, e.subset == "x") for e in examples}
    score = scored(benchmark, examples, answers)
    assert benchmark.name == "pairs"
    assert value(score, "overall") == round(2 / 3, 10)
    assert (value(score, "subset/x"), value(score, "subset/y")) == (1.0, 0.0)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (rewardbench_row(1, "donotanswer") | {"subset": "nonsense"}, "subset"),
        (rewardbench_row(1, "donotanswer") | {"prompt": 5}, "prompt"),
        (judgebench_row("1", "A=B"), "label"),
        (vote(1, "alpha"), "winner"),
        (vote(1, "tie", turn=3), "turn"),
        (vote(1, "tie") | {"conversation_b": conversation("q1")}, "conversation_b"),
        (best_of_four_row("a", "Math") | {"num_correct": 2}, "num_correct"),
        (ties_row("one", 2, 1), "id"),
        (helpsteer_row("p", 9), "helpfulness"),
        ({"input": "q", "output_1": "x", "output_2": "y", "label": 3}, "label"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected"),
    ],
)
def test_a_bad_row_is_refused_by_row_and_field(row: Row, field: str) -> None:
    with pytest.raises(BadRow) as refused:
        examples_of([row])
    assert (refused.value.row, refused.value.field) == (1, field)


def test_a_missing_field_is_named_when_the_benchmark_is(tmp_path: Path) -> None:
    row = rewardbench_row(1, "donotanswer")
    del row["rejected_model"]
    file = tmp_path / "rewardbench.jsonl"
    file.write_text(json.dumps(row))
    with pytest.raises(BadRow, match="row 1, rejected_model: missing"):
        load(file, "rewardbench")


@pytest.mark.parametrize("missing", ["rejected_model", "subset", "id", "prompt"])
def test_a_row_of_rewardbench_with_a_field_missing_is_not_plain_pairs(missing: str) -> None:
    row = rewardbench_row(1, "hep-cpp")
    del row[missing]
    with pytest.raises(BadRow, match=f"row 1, {missing}: missing.* of rewardbench "):
        find(row)
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    for extra in ({}, {"winner": "a"}, {"response": "x"}, {"id": "1", "label": 1}):
        assert find({**pair, **extra}).name == "pairs"


def test_files_as_they_are_published(tmp_path: Path) -> None:
    rows = [judgebench_row("1", "A>B"), judgebench_row("2", "B>A")]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "lines.jsonl").write_text(text)
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=2))
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt") as packed:
        packed.write(text)
    loaded = [load(tmp_path / name) for name in ("lines.jsonl", "array.json", "lines.jsonl.gz")]
    assert all(benchmark.name == "judgebench" for benchmark, _ in loaded)
    assert loaded[0][1] == loaded[1][1] == loaded[2][1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ('{"prompt": "q"}', "no known benchmark has the fields prompt"),
        ("[1]", "row 1: not a JSON object"),
        ("nonsense", "row 1: not JSON"),
        ('{"input": "q", "output_1": "x", "output_2": "y", "label": 1}\n{', "row 2: not JSON"),
        ('{"id": 1, "prompt": "q", "chosen": "a", "rejected": "b"}\n' * 2, "'1' occurs twice"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text(text)
    with pytest.raises(BadRow, match=message):
        load(file)
