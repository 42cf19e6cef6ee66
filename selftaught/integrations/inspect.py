"""Inspect AI: a scorer that asks whether a model's answer is better than another one."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import ChatMessage
from inspect_ai.scorer import (
    CORRECT,
    INCORRECT,
    PARTIAL,
    Score,
    Scorer,
    Target,
    accuracy,
    scorer,
    stderr,
)
from inspect_ai.solver import TaskState

from selftaught import AsyncClient

_VALUES = {"A": CORRECT, "B": INCORRECT, "tie": PARTIAL}


@scorer(metrics=[accuracy(), stderr()])
def pairwise_judge(
    model: str | None = None,
    baseline: str | None = None,
    base_url: str | None = None,
    key: str | None = None,
    **options: Any,
) -> Scorer:
    """Is the answer better than the baseline's? C if so, I if worse, P for a tie: accuracy is the
    win rate, a tie counting half. Without a readable verdict a sample is unscored.

    `baseline`: the field of a sample's metadata that has the other answer; default: its target.
    `model`: the judge, as name, name:alias or name:number; default: the only model's `latest`.
    `base_url` and `key`: of the gateway; default: as :class:`selftaught.Client`. `options`: more of
    `Client.judge`, such as `rubric` or `votes`. A refused question (ApiError) is an error of its
    sample.
    """

    async def score(state: TaskState, target: Target) -> Score:
        other = target.text if baseline is None else str(state.metadata[baseline])
        answer = state.output.completion
        asked = _asked(state.messages)
        async with AsyncClient(base_url, key=key) as client:
            verdict = await client.judge(
                asked, answer, other, **{"model": model, "explain": True, **options}
            )
        explanation = "\n\n".join(
            f"{one.order}: {one.reasoning}" for one in verdict.orders if one.reasoning
        )
        told = verdict.model_dump(mode="json", exclude={"orders"})
        if verdict.verdict == "unparsable":
            return Score.unscored(answer=answer, explanation=explanation, metadata=told)
        value = _VALUES[verdict.verdict]
        return Score(value=value, answer=answer, explanation=explanation, metadata=told)

    return score


def _asked(messages: list[ChatMessage]) -> list[dict[str, str]]:
    """The conversation up to the last thing that a user said."""
    turns = [
        {"role": one.role, "content": one.text}
        for one in messages
        if one.role in ("system", "user", "assistant")
    ]
    last = max(place for place, turn in enumerate(turns) if turn["role"] == "user")
    return turns[: last + 1]
