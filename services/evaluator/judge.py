"""One verdict: the version that a reference means now, asked in both orders.

Knows nothing about HTTP. The version is looked up on every call, so a moved alias counts at once;
its weights are loaded once (selftaught.versions).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from selftaught import aliases
from selftaught.contracts import JudgeIn, JudgeOut, OrderVerdict, SamplingSettings
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.hashing import stable_seed
from selftaught.inference import Completion, Request
from selftaught.judging import (
    ORDERS,
    JudgeTemplate,
    Order,
    Tally,
    Verdict,
    aggregate,
    parse_verdict,
    swap,
)
from selftaught.registry import judge_template
from selftaught.versions import open_version

PATIENCE = 20.0
"""Seconds that a caller waits for a server to be started."""


class TooLong(Exception):
    """The model cannot take a prompt of this length."""


def judge(question: JudgeIn) -> JudgeOut:
    """The verdict on a pair of responses; the same question to the same version, the same answer.

    Raises AliasError (which version?), TooLong, and inference's InferenceErrors.
    """
    started = time.perf_counter()
    with transaction() as session:
        version = aliases.resolve(session, question.model)
    template = judge_template(version.lineage["template"]["name"])
    orders: Sequence[Order] = ORDERS if question.both_orders else ORDERS[:1]
    answers = _ask(version, template, question, orders)
    votes = {
        order: [parse_verdict(vote.text, template, vote.finished) for vote in answers[order]]
        for order in orders
    }
    judged = aggregate(votes["AB"], votes.get("BA"))
    return JudgeOut(
        verdict=judged.verdict.value,
        confidence=judged.confidence,
        orders_agree=judged.agree,
        orders=[
            _order(order, judged.orders[order], votes[order], answers[order]) for order in orders
        ],
        parse_failures=judged.parse_failures,
        model=version.ref,
        template=template.name,
        template_sha256=template.sha256,
        tokens=sum(vote.completion_tokens for order in orders for vote in answers[order]),
        seconds=time.perf_counter() - started,
    )


def _ask(
    version: ModelVersion, template: JudgeTemplate, question: JudgeIn, orders: Sequence[Order]
) -> dict[Order, list[Completion]]:
    """The votes of each order."""
    pair = {
        "instruction": question.instruction,
        "chosen": question.response_a,
        "rejected": question.response_b,
    }
    requests = [
        Request(
            template.show(pair, order),
            stable_seed("judge", *pair.values(), order),
            n=question.votes,
        )
        for order in orders
    ]
    engine = open_version(version, patience=PATIENCE)
    answers = engine.generate(requests, _sampling(version, question.votes))
    if any(vote.finish_reason == "rejected" for votes in answers for vote in votes):
        raise TooLong(f"the pair is too long for {version.ref}")
    return dict(zip(orders, answers, strict=True))


def _sampling(version: ModelVersion, votes: int) -> SamplingSettings:
    """Greedy for one vote, as the version was scored; else as its recipe samples judgments."""
    if votes == 1:
        return SamplingSettings(temperature=0, max_tokens=version.lineage["judge_max_tokens"])
    return SamplingSettings.model_validate(version.lineage["judge_sampling"])


def _order(
    order: Order, tally: Tally, votes: Sequence[Verdict], answers: Sequence[Completion]
) -> OrderVerdict:
    """One order's outcome, with the text of a vote for it (level votes: of the first vote)."""
    as_shown = tally.verdict if order == "AB" else swap(tally.verdict)
    chosen = votes.index(as_shown) if as_shown in votes else 0
    return OrderVerdict(
        order=order,
        verdict=tally.verdict.value,
        share=tally.share,
        reasoning=answers[chosen].text,
    )
