"""From a question to the model's prompts, and from its answers to a ruling: pure functions.

`POST /judge` and batches ask and answer by these, so that they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selftaught.contracts import (
    Asked,
    JudgeIn,
    OrderVerdict,
    PairProbability,
    Ruling,
    SamplingSettings,
    ScoreIn,
    VerdictProbability,
)
from selftaught.database.tables import ModelVersion
from selftaught.hashing import stable_seed
from selftaught.inference import Completion, Request
from selftaught.judging import (
    ORDERS,
    JudgeTemplate,
    Order,
    Probability,
    ScoreTemplate,
    Tally,
    Verdict,
    aggregate,
    in_context,
    of_votes,
    over_orders,
    parse_verdict,
    settle,
    swap,
)
from services.evaluator.calibration import Calibration


class TooLong(Exception):
    """The model cannot take a prompt of this length."""


def orders_of(question: JudgeIn) -> Sequence[Order]:
    """The orders to ask in."""
    return ORDERS if question.both_orders else ORDERS[:1]


def requests_of(question: JudgeIn, template: JudgeTemplate, key: bytes) -> list[Request]:
    """A request for each order. Random numbers follow from what is asked, not from when.

    `key`: of the fences, :func:`selftaught.fences.fence_key`.
    """
    pair = {
        "instruction": instruction_of(question),
        "chosen": question.response_a,
        "rejected": question.response_b,
    }
    return [
        Request(
            template.show(pair, order, key),
            stable_seed("judge", *pair.values(), order),
            n=question.votes,
            marks=template.verdict_marks,
        )
        for order in orders_of(question)
    ]


def sampling_of(version: ModelVersion, votes: int) -> SamplingSettings:
    """Greedy for one vote, as the version was scored; else as its recipe samples judgments."""
    if votes == 1:
        return SamplingSettings(temperature=0, max_tokens=version.lineage["judge_max_tokens"])
    return SamplingSettings.model_validate(version.lineage["judge_sampling"])


def ruling(
    question: JudgeIn,
    version: ModelVersion,
    template: JudgeTemplate,
    answers: Sequence[Sequence[Completion]],
    calibration: Calibration | None = None,
) -> Ruling:
    """The verdict from the completions of :func:`requests_of`; raises TooLong.

    `calibration`: the version's, if it has one (:func:`services.evaluator.calibration.load`).
    """
    if any(vote.finish_reason == "rejected" for votes in answers for vote in votes):
        raise TooLong(f"the pair is too long for {version.ref}")
    by_order = dict(zip(orders_of(question), answers, strict=True))
    votes = {
        order: [parse_verdict(vote.text, template, vote.finished) for vote in found]
        for order, found in by_order.items()
    }
    likely = {
        order: _likely(order, votes[order], found, template) for order, found in by_order.items()
    }
    pair, calibrated = None, False
    if None not in likely.values():
        calibrated = calibration is not None and calibration.fits(question, template)
        temperature = calibration.temperature if calibration and calibrated else 1.0
        pair = over_orders([one for one in likely.values() if one], temperature)
    judged = aggregate(votes["AB"], votes.get("BA"))
    if not question.allow_tie:
        cast = [*votes["AB"], *map(swap, votes.get("BA", ()))]
        judged = settle(judged, cast, pair.log_odds if pair else None, coin(question))
        pair = pair and pair.without_tie()
    return Ruling(
        verdict=judged.verdict.value,
        confidence=judged.confidence,
        probability=pair
        and PairProbability(a=pair.a, b=pair.b, tie=pair.tie, calibrated=calibrated),
        orders_agree=judged.agree,
        orders=[
            _order(
                order, judged.orders[order], votes[order], found, likely[order], question.explain
            )
            for order, found in by_order.items()
        ],
        parse_failures=judged.parse_failures,
        model=version.ref,
        job=version.job_id,
        template=template.name,
        template_sha256=template.sha256,
        prompt_tokens=sum(found[0].prompt_tokens for found in by_order.values()),
        completion_tokens=sum(vote.completion_tokens for found in answers for vote in found),
    )


def coin(question: JudgeIn) -> Verdict:
    """A or B by the content alone: the same response wins if the two change places."""
    instruction = instruction_of(question)
    a, b = (
        stable_seed("coin", instruction, response)
        for response in (question.response_a, question.response_b)
    )
    return Verdict.A if a <= b else Verdict.B


def score_requests(question: ScoreIn, template: ScoreTemplate, key: bytes) -> list[Request]:
    """The one request of a score; `key` as in :func:`requests_of`."""
    instruction = instruction_of(question)
    return [
        Request(
            template.render(instruction, question.response, key),
            stable_seed("rate", instruction, question.response),
            n=question.votes,
        )
    ]


def score_of(
    question: ScoreIn,
    version: ModelVersion,
    template: ScoreTemplate,
    answers: Sequence[Completion],
) -> dict[str, Any]:
    """The fields of a ResponseScore but for how long it took; raises TooLong."""
    if any(vote.finish_reason == "rejected" for vote in answers):
        raise TooLong(f"the response is too long for {version.ref}")
    scores = [
        score for vote in answers if (score := template.read(vote.text, vote.finished)) is not None
    ]
    return {
        "score": sum(scores) / len(scores) if scores else None,
        "scores": scores,
        "parse_failures": len(answers) - len(scores),
        "reasoning": answers[0].text if question.explain else None,
        "model": version.ref,
        "job": version.job_id,
        "template": template.name,
        "template_sha256": template.sha256,
        "prompt_tokens": answers[0].prompt_tokens,
        "completion_tokens": sum(vote.completion_tokens for vote in answers),
    }


def instruction_of(question: Asked) -> str:
    """The instruction behind its conversation, then the reference answer and the rubric."""
    if question.messages is None:
        text = question.instruction or ""
    else:
        *context, last = [message.model_dump() for message in question.messages]
        text = in_context(last["content"], context)
    if question.reference is not None:
        text += f"\n\nA reference answer, which is known to be good:\n\n{question.reference}"
    if question.rubric is not None:
        text += f"\n\nJudge the responses by this rubric:\n\n{question.rubric}"
    return text


def _likely(
    order: Order,
    votes: Sequence[Verdict],
    answers: Sequence[Completion],
    template: JudgeTemplate,
) -> Probability | None:
    """One order's probability in the pair's letters; None if the engine told none."""
    logprobs = [vote.mark_logprobs for vote in answers]
    shown = of_votes(template, zip(votes, logprobs, strict=True))
    return shown.swapped() if shown and order == "BA" else shown


def _order(
    order: Order,
    tally: Tally,
    votes: Sequence[Verdict],
    answers: Sequence[Completion],
    likely: Probability | None,
    explain: bool,
) -> OrderVerdict:
    """One order's outcome, with the text of a vote for it (level votes: of the first vote)."""
    as_shown = tally.verdict if order == "AB" else swap(tally.verdict)
    chosen = votes.index(as_shown) if as_shown in votes else 0
    return OrderVerdict(
        order=order,
        verdict=tally.verdict.value,
        share=tally.share,
        probability=likely and VerdictProbability(a=likely.a, b=likely.b, tie=likely.tie),
        reasoning=answers[chosen].text if explain else None,
    )
