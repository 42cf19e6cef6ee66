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
from functools import partial

from selftaught.contracts import JudgeSettings
from selftaught.hashing import stable_seed
from selftaught.inference import Dialogue, Engine, Request, in_rounds
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
    dialogues = [
        _dialogue(pair, order, template, settings, seed, found)
        for (pair, order), found in zip(inputs, rows, strict=True)
    ]
    if quota is None:
        engine.converse(dialogues)
    else:  # what a label still needs is known when all its open inputs have been asked
        below_quota = partial(_below_quota, inputs, rows, settings.need, quota)
        in_rounds(engine.generate, dialogues, below_quota)
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


def _dialogue(
    pair: Row,
    order: Order,
    template: JudgeTemplate,
    settings: JudgeSettings,
    seed: int,
    rows: list[Row],
) -> Dialogue:
    """Ask one input until it has enough; its judgments go to `rows`, by sample."""
    wave = settings.samples if settings.need == "all" else settings.wave
    messages = template.show(pair, order)
    own_seed = stable_seed(seed, "judge", pair["id"], order)
    for first in range(0, settings.samples, wave):
        n = min(wave, settings.samples - first)
        completions = yield Request(messages, own_seed, n, first), settings.sampling
        for sample, completion in enumerate(completions, first):
            verdict = parse_verdict(completion.text, template, completion.finished)
            rows.append(
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
        if _enough(rows, settings.need):
            return


def _below_quota(
    inputs: Sequence[tuple[Row, Order]],
    rows: Sequence[Sequence[Row]],
    need: str,
    quota: int,
    index: int,
) -> bool:
    """The label of input `index` has not yet its quota of inputs with enough."""
    order = inputs[index][1]
    met = sum(
        _enough(found, need)
        for (_, other), found in zip(inputs, rows, strict=True)
        if other == order
    )
    return met < quota


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
