"""Asks the current judge about every pair, up to N times in each order.

In order AB the chosen response stands first, so the label is A; in order BA it is B. All samples of
a prompt are one request, so that an engine can compute the prompt once. Random numbers depend on
(seed, pair, order, sample) only: how pairs are cut into chunks changes nothing.

Adaptive sampling (`need` other than "all") asks in waves and stops an input that has what it needs.
It goes by sample number, never by who finished first: a sample is there if all before it are, so
short judgments have no advantage, and what is kept stands in the run with all N as well. With a
quota a label (A or B) is asked about no more once so many of its inputs have what they need.
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

    `counts`: pairs, judgments_sampled, judgments_spared (of N each, not asked for), parsed, right
    (verdict = label), wrong, ties, unparsable, prompt_tokens (each prompt once), completion_tokens,
    tokens_spared (an estimate: judgments not asked for, at the mean length of their input's).
    """

    rows: list[Row] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def judge_pairs(
    pairs: Sequence[Row],
    engine: Engine,
    template: JudgeTemplate,
    settings: JudgeSettings,
    seed: int,
    quota: int | None = None,
) -> Judgments:
    """Sample judgments of rows {id, instruction, chosen, rejected}; `seed` names job, iteration.

    `quota`: how many of these inputs are to have enough, of each label.
    """
    inputs = [(pair, order) for pair in pairs for order in ORDERS]
    rows: list[list[Row]] = [[] for _ in inputs]
    open_inputs = list(range(len(inputs)))
    wave = settings.samples if settings.need == "all" else settings.wave
    for first in range(0, settings.samples, wave):
        requests = [
            Request(
                template.show(pair, order),
                stable_seed(seed, "judge", pair["id"], order),
                min(wave, settings.samples - first),
                first,
            )
            for pair, order in (inputs[index] for index in open_inputs)
        ]
        answers = engine.generate(requests, settings.sampling)
        for index, completions in zip(open_inputs, answers, strict=True):
            pair, order = inputs[index]
            for sample, completion in enumerate(completions, first):
                verdict = parse_verdict(completion.text, template, completion.finished)
                rows[index].append(
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
        enough = [_enough(found, settings.need) for found in rows]
        met = Counter(order for (_, order), done in zip(inputs, enough, strict=True) if done)
        open_inputs = [
            index
            for index in open_inputs
            if not enough[index] and (quota is None or met[inputs[index][1]] < quota)
        ]
        if not open_inputs:
            break
    result = Judgments()
    result.counts["pairs"] = len(pairs)
    for found in rows:
        result.rows += found
        result.counts["prompt_tokens"] += found[0]["prompt_tokens"]
        result.counts["judgments_spared"] += settings.samples - len(found)
        for row in found:
            result.counts.update(_outcome(Verdict(row["verdict"]), Verdict(row["label"])))
            result.counts["completion_tokens"] += row["completion_tokens"]
        spent = sum(row["completion_tokens"] for row in found)
        result.counts["tokens_spared"] += round(
            spent / len(found) * (settings.samples - len(found))
        )
    return result


def _enough(rows: Sequence[Row], need: str) -> bool:
    right: int = sum(row["verdict"] == row["label"] for row in rows)
    if need == "right":
        return right > 0
    return need == "right_and_wrong" and 0 < right < len(rows)


def _outcome(verdict: Verdict, label: Verdict) -> list[str]:
    if verdict is Verdict.UNPARSABLE:
        return ["judgments_sampled", "unparsable"]
    kind = "ties" if verdict is Verdict.TIE else "right" if verdict == label else "wrong"
    return ["judgments_sampled", "parsed", kind]
