"""Asks the current judge about every pair, N times in each order.

In order AB the chosen response stands first, so the label is A; in order BA it is B. All samples of
a prompt are one request, so that an engine can compute the prompt once. Random numbers depend on
(seed, pair, order, sample) only: how pairs are cut into chunks changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from selftaught.contracts import JudgeSettings
from selftaught.hashing import stable_seed
from selftaught.inference import Engine, Request
from selftaught.jsonl import Row
from selftaught.judging import ORDERS, JudgeTemplate, Order, Verdict, parse_verdict

LABELS: dict[Order, Verdict] = {"AB": Verdict.A, "BA": Verdict.B}
"""Where the chosen response stands."""


@dataclass
class Judgments:
    """`rows`: {pair_id, order, sample, text, verdict, label, finish_reason, prompt_tokens,
    completion_tokens}, verdicts in the letters as shown.

    `counts`: pairs, judgments_sampled, parsed, right (verdict = label), wrong, ties, unparsable,
    prompt_tokens (each prompt once), completion_tokens.
    """

    rows: list[Row] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def judge_pairs(
    pairs: Sequence[Row],
    engine: Engine,
    template: JudgeTemplate,
    settings: JudgeSettings,
    seed: int,
) -> Judgments:
    """Sample judgments of rows {id, instruction, chosen, rejected}; `seed` names job, iteration."""
    asked = [(pair, order) for pair in pairs for order in ORDERS]
    requests = [
        Request(
            template.show(pair, order),
            stable_seed(seed, "judge", pair["id"], order),
            settings.samples,
        )
        for pair, order in asked
    ]
    result = Judgments()
    result.counts["pairs"] = len(pairs)
    answers = engine.generate(requests, settings.sampling)
    for (pair, order), completions in zip(asked, answers, strict=True):
        result.counts["prompt_tokens"] += completions[0].prompt_tokens
        for sample, completion in enumerate(completions):
            verdict = parse_verdict(completion.text, template, completion.finished)
            result.rows.append(
                {
                    "pair_id": pair["id"],
                    "order": order,
                    "sample": sample,
                    "text": completion.text,
                    "verdict": verdict.value,
                    "label": LABELS[order].value,
                    "finish_reason": completion.finish_reason,
                    "prompt_tokens": completion.prompt_tokens,
                    "completion_tokens": completion.completion_tokens,
                }
            )
            result.counts.update(_outcome(verdict, LABELS[order]))
            result.counts["completion_tokens"] += completion.completion_tokens
    return result


def _outcome(verdict: Verdict, label: Verdict) -> list[str]:
    if verdict is Verdict.UNPARSABLE:
        return ["judgments_sampled", "unparsable"]
    kind = "ties" if verdict is Verdict.TIE else "right" if verdict == label else "wrong"
    return ["judgments_sampled", "parsed", kind]
