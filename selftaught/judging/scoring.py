"""How good a judge is on pairs whose better side is known: greedy, in both orders, strictly.

Counts are plain integers under flat keys, so that the counts of chunks add up to the counts of the
whole; :func:`summarise` turns them into rates at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selftaught.hashing import stable_seed
from selftaught.inference import Engine, Request, Sampling
from selftaught.jsonl import Row
from selftaught.judging import (
    ORDERS,
    JudgeTemplate,
    Probability,
    Verdict,
    combine,
    of_votes,
    over_orders,
    parse_verdict,
)

_SUBSET = "subset/"


def judge_outcomes(
    engine: Engine,
    template: JudgeTemplate,
    pairs: Sequence[Row],
    max_tokens: int,
    sure: bool = False,
) -> list[Row]:
    """Judge rows {id, instruction, chosen, rejected, subset?} greedily in both orders.

    Outcomes: {id, subset, ab, ba, verdict, text_ab, text_ba, tokens, log_odds}; ab and ba are
    verdicts in the letters as shown, `verdict` combines them (A = the chosen response); tokens were
    written. `log_odds` are those of the chosen response against the rejected one over both orders
    (:func:`over_orders`); None unless `sure` asks for them, the engine gives token alternatives and
    both judgments could be read.
    """
    marks = template.verdict_marks if sure else ()
    requests = [
        Request(template.show(pair, order), stable_seed("score", pair["id"], order), marks=marks)
        for pair in pairs
        for order in ORDERS
    ]
    answers = engine.generate(requests, Sampling(temperature=0, max_tokens=max_tokens))
    outcomes = []
    for index, pair in enumerate(pairs):
        both = [answers[2 * index][0], answers[2 * index + 1][0]]
        ab, ba = (parse_verdict(each.text, template, each.finished) for each in both)
        outcomes.append(
            {
                "id": pair["id"],
                "subset": pair.get("subset"),
                "ab": ab.value,
                "ba": ba.value,
                "verdict": combine(ab, ba).verdict.value,
                "text_ab": both[0].text,
                "text_ba": both[1].text,
                "tokens": sum(each.completion_tokens for each in both),
                "log_odds": _log_odds(
                    of_votes(template, [(ab, both[0].mark_logprobs)]),
                    of_votes(template, [(ba, both[1].mark_logprobs)]),
                ),
            }
        )
    return outcomes


def _log_odds(ab: Probability | None, ba: Probability | None) -> float | None:
    if ab is None or ba is None:
        return None
    return round(over_orders([ab, ba.swapped()]).log_odds, 4)


def score_pairs(
    engine: Engine, template: JudgeTemplate, pairs: Sequence[Row], max_tokens: int
) -> dict[str, int]:
    """:func:`count_outcomes` of :func:`judge_outcomes`."""
    return count_outcomes(judge_outcomes(engine, template, pairs, max_tokens))


def count_outcomes(outcomes: Iterable[Row]) -> dict[str, int]:
    """Counts of outcomes; add chunks up with :func:`merge_counts`.

    For all pairs, and again under `subset/<name>/` for each subset: n, strict_right, right_ab,
    right_ba, ties (combined verdict), parse_failures (judgments), verdict_a, verdict_b (judgments,
    letters as shown). Overall also tokens (written).
    """
    counts: Counter[str] = Counter(tokens=0)
    for outcome in outcomes:
        one = count_pair(Verdict(outcome["ab"]), Verdict(outcome["ba"]))
        counts.update(one)
        counts["tokens"] += outcome["tokens"]
        if outcome["subset"]:
            prefix = f"{_SUBSET}{outcome['subset']}/"
            counts.update({prefix + key: number for key, number in one.items()})
    return dict(counts)


def rights(outcomes: Iterable[Row]) -> str:
    """'1' for each outcome that is right in both orders, else '0'."""
    return "".join("1" if (one["ab"], one["ba"]) == ("A", "B") else "0" for one in outcomes)


def merge_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of the whole from the counts of its chunks."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def count_pair(ab: Verdict, ba: Verdict) -> Counter[str]:
    """The counts of one pair, from its verdicts in the letters as shown (chosen = A in AB)."""
    right_ab, right_ba = ab is Verdict.A, ba is Verdict.B
    said = [ab, ba]
    return Counter(
        {
            "n": 1,
            "strict_right": int(right_ab and right_ba),
            "right_ab": int(right_ab),
            "right_ba": int(right_ba),
            "ties": int(combine(ab, ba).verdict is Verdict.TIE),
            "parse_failures": said.count(Verdict.UNPARSABLE),
            "verdict_a": said.count(Verdict.A),
            "verdict_b": said.count(Verdict.B),
        }
    )


def summarise(counts: Mapping[str, int]) -> dict[str, Any]:
    """Rates from (summed) counts; every rate is None when there is nothing to divide by.

    n: pairs. strict_accuracy: share of pairs right in both orders; a tie or a parse failure is not
    right. ci95: its Wilson interval [low, high]. mean_accuracy: share of right judgments over both
    orders. accuracy_winner_first, _last: share of right judgments where the better response stood
    first (AB), last (BA). position_bias: (verdicts A - verdicts B) / (verdicts A + verdicts B), as
    shown, over both orders of every pair: each response stands first once, so 0 is unbiased, 1
    always says the first, -1 always the last. ties: share of pairs whose combined verdict is a tie
    (disagreement included). parse_failures: share of judgments. subsets: name -> the same.
    """
    n = counts.get("n", 0)
    a, b = counts.get("verdict_a", 0), counts.get("verdict_b", 0)
    right_ab, right_ba = counts.get("right_ab", 0), counts.get("right_ba", 0)
    strict = counts.get("strict_right", 0)
    summary: dict[str, Any] = {
        "n": n,
        "strict_accuracy": _rate(strict, n),
        "ci95": wilson(strict, n),
        "mean_accuracy": _rate(right_ab + right_ba, 2 * n),
        "accuracy_winner_first": _rate(right_ab, n),
        "accuracy_winner_last": _rate(right_ba, n),
        "position_bias": _rate(a - b, a + b),
        "ties": _rate(counts.get("ties", 0), n),
        "parse_failures": _rate(counts.get("parse_failures", 0), 2 * n),
    }
    subsets: dict[str, dict[str, int]] = {}
    for key, count in counts.items():
        if key.startswith(_SUBSET):
            name, _, inner = key.removeprefix(_SUBSET).rpartition("/")
            subsets.setdefault(name, {})[inner] = count
    if subsets:
        summary["subsets"] = {name: summarise(subsets[name]) for name in sorted(subsets)}
    return summary


def wilson(right: float, n: float, z: float = 1.959963984540054) -> list[float] | None:
    """Wilson score interval of a share, 95 % by default; None for n = 0. Wilson 1927, JASA 22.

    Fractions are right where `n` is an effective sample size.
    """
    if not n:
        return None
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
