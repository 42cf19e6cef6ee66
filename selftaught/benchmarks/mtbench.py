"""MT-Bench human judgments (Zheng et al. 2023, arXiv 2306.05685): agreement with people's votes.

Official script: fastchat/llm_judge/compute_agreement.py. The judge sees a pair in both orders;
disagreement is a tie. Its one vote is compared with every vote of an expert on that question, pair
and turn. Setup 1 keeps ties (all kinds of tie are equal); setup 2 leaves out every comparison in
which either side says tie. A judge without a verdict in some order has no vote there, as where
FastChat reports results. Votes of authors and of other models are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from selftaught.benchmarks.base import (
    AB,
    BA,
    BadRow,
    Benchmark,
    Example,
    Judgments,
    NumberedRow,
    Row,
    Score,
)
from selftaught.benchmarks.pairwise import both_orders
from selftaught.benchmarks.statistics import Array, Sums, Unit, bootstrap, ratio
from selftaught.contracts import Scoring
from selftaught.judging import Verdict, swap

NAME = "mtbench-human"
WINNERS = ("model_a", "model_b", "tie", "tie (inconsistent)", "tie (bothbad)")


def read(rows: Iterable[NumberedRow]) -> Iterator[Example]:
    """One example per question, pair of models and turn, with the votes of every expert.

    `truth` is a tuple of votes as verdicts on (the first model, the second model), by name.
    """
    votes: defaultdict[tuple[Any, str, str, int], list[Verdict]] = defaultdict(list)
    shown: dict[tuple[Any, str, str, int], tuple[str, tuple[str, str]]] = {}
    for number, row in rows:
        BENCHMARK.check(number, row)
        winner = row["winner"]
        if "tie" not in winner and winner not in WINNERS:
            raise BadRow(number, "winner", f"{winner!r} is none of {', '.join(WINNERS)}")
        if row["turn"] not in (1, 2):
            raise BadRow(number, "turn", "neither 1 nor 2")
        if not row["judge"].startswith("expert"):
            continue
        vote = {"model_a": Verdict.A, "model_b": Verdict.B}.get(winner, Verdict.TIE)
        sides = [
            (row[f"model_{side}"], *_transcript(number, row, side, row["turn"])) for side in "ab"
        ]
        if row["model_b"] < row["model_a"]:
            sides.reverse()
            vote = swap(vote)
        key = (row["question_id"], sides[0][0], sides[1][0], row["turn"])
        votes[key].append(vote)
        shown[key] = (sides[0][1], (sides[0][2], sides[1][2]))
    for key, found in votes.items():
        instruction, responses = shown[key]
        name = "/".join(str(part) for part in key)
        yield Example(name, instruction, responses, tuple(found), f"turn {key[3]}")


def _transcript(number: int, row: Row, side: str, turns: int) -> tuple[str, str]:
    """The user's messages and the assistant's, up to the judged turn; numbered if there are two."""
    field = f"conversation_{side}"
    texts: dict[str, list[str]] = {"user": [], "assistant": []}
    for message in row[field][: 2 * turns]:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise BadRow(number, field, "a message has no content")
        if message.get("role") not in texts:
            raise BadRow(number, field, f"unknown role {message.get('role')!r}")
        texts[message["role"]].append(message["content"])
    if len(texts["user"]) != turns or len(texts["assistant"]) != turns:
        raise BadRow(number, field, f"not {turns} turns of user and assistant")
    return _join(texts["user"]), _join(texts["assistant"])


def _join(turns: list[str]) -> str:
    if len(turns) == 1:
        return turns[0]
    return "\n\n".join(f"[Turn {number}]\n{text}" for number, text in enumerate(turns, 1))


def score(examples: Sequence[Example], judgments: Judgments, scoring: Scoring, seed: int) -> Score:
    tallies: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    rights: dict[str, float] = {}
    counts = {"examples": len(examples), "votes": 0, "no_verdict": 0}
    for example in examples:
        counts["votes"] += len(example.truth)
        question = tallies[example.id.partition("/")[0]]
        turn = str(example.subset)
        if scoring == "strict":
            agreed, compared = _strict(example, judgments, question, turn)
        else:
            agreed, compared = _official(example, judgments, question, turn, counts)
        if compared:
            rights[example.id] = agreed / compared
    units = [Unit("", values) for values in tallies.values()]
    kinds = sorted({k.partition("|")[0] for values in tallies.values() for k in values})

    def figures(sums: Sums) -> dict[str, Array]:
        total = sums[""]
        return {kind: ratio(total[f"{kind}|agreed"], total[f"{kind}|compared"]) for kind in kinds}

    return Score(NAME, scoring, bootstrap(units, figures, seed), counts, rights)


Tally = defaultdict[str, float]


def _official(
    example: Example, judgments: Judgments, question: Tally, turn: str, counts: dict[str, int]
) -> tuple[int, int]:
    """Add to `turn/setup 1` and `turn/setup 2`; (agreed, compared) of setup 1."""
    said = judgments.official(example, AB), swap(judgments.official(example, BA))
    if Verdict.UNPARSABLE in said:
        counts["no_verdict"] += 1
        return 0, 0
    mine = said[0] if said[0] == said[1] else Verdict.TIE
    agreed = 0
    for vote in example.truth:
        agreed += mine is vote
        _add(question, f"{turn}/setup 1", mine is vote)
        if Verdict.TIE not in (mine, vote):
            _add(question, f"{turn}/setup 2", mine is vote)
    return agreed, len(example.truth)


def _strict(example: Example, judgments: Judgments, question: Tally, turn: str) -> tuple[int, int]:
    """Of the votes for one of the two: how often both orders name it. No verdict is not right."""
    said = judgments.strict(example, AB), swap(judgments.strict(example, BA))
    winners = [vote for vote in example.truth if vote is not Verdict.TIE]
    right = [said == (vote, vote) for vote in winners]
    for one in right:
        _add(question, "overall", one)
        _add(question, turn, one)
    return sum(right), len(right)


def _add(question: Tally, kind: str, agreed: bool) -> None:
    question[f"{kind}|agreed"] += agreed
    question[f"{kind}|compared"] += 1


BENCHMARK = Benchmark(
    NAME,
    {
        "question_id": (int, str),
        "model_a": str,
        "model_b": str,
        "winner": str,
        "judge": str,
        "conversation_a": list,
        "conversation_b": list,
        "turn": int,
    },
    read,
    both_orders,
    score,
)
