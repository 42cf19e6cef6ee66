"""Canaries and their reports; the log of verdicts."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, example
from selftaught.contracts.judging import Latency, OrderVerdict
from selftaught.contracts.models import VersionOut

CanaryMode = Literal["share", "shadow"]
_CANARY: dict[str, Any] = {
    "id": "can_019ac5a2e0b14f6d1a2b3c4d",
    "model": "tour",
    "alias": "latest",
    "incumbent": "tour:1",
    "version": "tour:2",
    "mode": "shadow",
    "share": 0.1,
    "reason": "before it leads",
    "created_at": "2026-11-27T16:40:00Z",
    "ended_at": None,
    "ended_reason": None,
}
_SURE = {"a": 0.99999, "b": 0.000002, "tie": 0.000008}
_VERDICT: dict[str, Any] = {
    "id": "vdt_019ac5a1c3d08f2a5b7c9d0e",
    "created_at": "2026-11-27T16:41:07Z",
    "model": "tour:1",
    "job": "job_019ac5a1c3d08f2a5b7c9d0e",
    "template": "smallworld",
    "template_sha256": "6a0bb712516522fc89a0f4c1457f6dc1695a09440ea0e0304fdf7d59b4e1e0dc",
    "alias": "tour:latest",
    "canary": None,
    "verdict": "A",
    "confidence": 1.0,
    "orders_agree": True,
    "orders": [
        {"order": "AB", "verdict": "A", "share": 1.0, "probability": _SURE, "reasoning": None},
        {"order": "BA", "verdict": "A", "share": 1.0, "probability": _SURE, "reasoning": None},
    ],
    "votes": 1,
    "parse_failures": 0,
    "prompt_tokens": 122,
    "completion_tokens": 58,
    "cached": False,
    "latency": {"total": 0.071, "queue": 0.004, "engine": 0.066},
    "content_sha256": "b7e23ec29af22b0b4e41da31e868d57226121c84a2c1d9a9d0f0b5a3a3c7b2a1",
    "texts": None,
    "request_id": "req_019ac5a1c3d01f2e3d4c5b6a",
}


def _arm(seconds: float, **verdicts: int) -> dict[str, Any]:
    n = sum(verdicts.values())
    return {
        "n": n,
        "verdicts": verdicts,
        "tie_share": verdicts["tie"] / n,
        "parse_failure_rate": 0.005,
        "position_bias": 0.04,
        "order_disagreement": 0.08,
        "mean_confidence": 0.94,
        "seconds_p50": seconds,
        "seconds_p95": 2 * seconds,
    }


class CanaryIn(Contract):
    """PUT /v1/models/{name}/aliases/{alias}/canary: try a version before it goes live."""

    model_config = example(version=2, mode="shadow", share=0.1, reason="before it leads")

    version: int = Field(ge=0, description="The version to try, by number.")
    mode: CanaryMode = Field(
        "shadow",
        description="'shadow': the alias's version answers, and this one judges the same pairs "
        "unseen. 'share': this one answers.",
    )
    share: float = Field(gt=0, le=1, description="Of the questions that come by the alias.")
    reason: str = Field("manual", max_length=500, description="Kept with the canary.")
    prepare: bool = Field(
        True, description="First have the evaluators open the version; refuse one that cannot be."
    )


class CanaryOut(BaseModel):
    """A version that is, or was, tried beside the one that an alias names."""

    model_config = example(**_CANARY)

    id: str = Field(description="Under which its report is kept.")
    model: str = Field(description="Name of the model.")
    alias: str = Field(description="Name of the alias.")
    incumbent: str = Field(description="What the alias names while the canary lives, name:number.")
    version: str = Field(description="What is tried, name:number.")
    mode: CanaryMode = Field(description="share: it answers; shadow: it judges unseen.")
    share: float = Field(description="Of the questions that come by the alias.")
    reason: str = Field(description="As it was given.")
    created_at: dt.datetime = Field(description="When it began.")
    ended_at: dt.datetime | None = Field(description="When it ended; null while it lives.")
    ended_reason: str | None = Field(description="deleted, replaced, or how the alias moved.")


class CanaryArm(BaseModel):
    """One side, over the distinct questions that it was asked. Shares are null without any."""

    n: int = Field(description="Questions, failed ones included.")
    verdicts: dict[str, int] = Field(description="A, B, tie, unparsable, failed (no answer).")
    tie_share: float | None = Field(description="Of the answered questions.")
    parse_failure_rate: float | None = Field(description="Of all votes.")
    position_bias: float | None = Field(
        description="Over the orders as shown: (first - second) / (first + second); 0 has none."
    )
    order_disagreement: float | None = Field(description="Of the questions asked in both orders.")
    mean_confidence: float | None = Field(description="Of the answered questions.")
    seconds_p50: float | None = Field(description="In the engine; answers of the cache left out.")
    seconds_p95: float | None = Field(description="The slowest twentieth took longer.")


class CanaryAgreement(BaseModel):
    """Over the questions that both sides answered."""

    n: int = Field(description="Questions.")
    agreement: float | None = Field(description="Share with the same verdict.")
    ci95: tuple[float, float] | None = Field(description="Wilson interval of `agreement`.")
    kappa: float | None = Field(description="Cohen's; null where chance alone agrees always.")
    kappa_ci95: tuple[float, float] | None = Field(description="Interval of `kappa`.")
    confusion: dict[str, dict[str, int]] = Field(
        description="Incumbent's verdict -> canary's -> n."
    )


class CanaryReport(BaseModel):
    """How a canary compares with the version that the alias names."""

    model_config = example(
        canary=_CANARY,
        agreement={
            "n": 200,
            "agreement": 0.9,
            "ci95": [0.851, 0.934],
            "kappa": 0.81,
            "kappa_ci95": [0.735, 0.886],
            "confusion": {
                "A": {"A": 95, "B": 4, "tie": 3, "unparsable": 0},
                "B": {"A": 3, "B": 76, "tie": 3, "unparsable": 0},
                "tie": {"A": 3, "B": 3, "tie": 9, "unparsable": 0},
                "unparsable": {"A": 1, "B": 0, "tie": 0, "unparsable": 0},
            },
        },
        arms={
            "incumbent": _arm(0.066, A=102, B=82, tie=15, unparsable=1, failed=0),
            "canary": _arm(0.068, A=102, B=83, tie=15, unparsable=0, failed=0),
        },
    )

    canary: CanaryOut = Field(description="What is, or was, tried.")
    agreement: CanaryAgreement = Field(description="Of questions that both judged: shadow's.")
    arms: dict[Literal["incumbent", "canary"], CanaryArm] = Field(description="Each by itself.")


class VerdictOut(BaseModel):
    """A logged answer of /judge."""

    model_config = example(**_VERDICT)

    id: str = Field(description="As in the answer.")
    created_at: dt.datetime = Field(description="When it was given.")
    model: str = Field(description="Exact version that answered, name:number.")
    job: str | None = Field(description="The job that made this version.")
    template: str = Field(description="Name of the template that it was asked with.")
    template_sha256: str = Field(description="Of the template's content.")
    alias: str | None = Field(description="name:alias it came by; null: an exact version.")
    canary: str | None = Field(description="Id of the canary whose version answered.")
    verdict: Literal["A", "B", "tie", "unparsable"] = Field(description="As it was answered.")
    confidence: float = Field(description="As it was answered.")
    orders_agree: bool | None = Field(description="None when one order was judged.")
    orders: list[OrderVerdict] = Field(description="Without reasoning, which is in `texts`.")
    votes: int = Field(description="As many as were asked for.")
    parse_failures: int = Field(description="Votes without a readable verdict.")
    prompt_tokens: int = Field(description="Each order's prompt once.")
    completion_tokens: int = Field(description="Of all votes.")
    cached: bool = Field(description="A former, equal call's answer.")
    latency: Latency = Field(description="Where the time went.")
    content_sha256: str = Field(
        description="Of all that was asked but for model, explain, timeout_seconds and cache."
    )
    texts: dict[str, Any] | None = Field(
        description="If the log keeps texts: what was asked, and the reasoning of each order."
    )
    request_id: str | None = Field(description="The answer's X-Request-ID.")


class VerdictTrace(VerdictOut):
    """A logged answer, and where the version that gave it came from."""

    model_config = example(**_VERDICT, version=VersionOut.model_json_schema()["examples"][0])

    version: VersionOut = Field(description="With its lineage, and the job that made it.")


class Prepare(Contract):
    """The evaluator's POST /prepare, which the gateway asks before an alias moves."""

    model_config = example(version="ver_019ac5a2a1b14f6d1a2b3c4d")

    version: str = Field(max_length=128, description="Id of a version.")


class Prepared(BaseModel):
    """A version that is open."""

    model_config = example(model="tour:2")

    model: str = Field(description="The version that is open now, name:number.")
