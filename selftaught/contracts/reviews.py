"""Reviews: people's verdicts on sampled judgments of a version, blind to what it said."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from selftaught.contracts.base import Contract

Stratum = Literal["disagreement", "low_confidence", "random"]
PersonVerdict = Literal["A", "B", "tie"]
ModelVerdict = Literal["A", "B", "tie", "unparsable"]
DriftState = Literal["ok", "watch", "alarm"]
Reviewer = Annotated[
    str, Field(min_length=1, max_length=200, description="Who reviews: any name, always the same.")
]


class ReviewShares(Contract):
    """How the items of a queue are shared out; only the ratios count."""

    disagreement: float = Field(
        0.4, ge=0, le=1, description="Pairs that the two versions differ on."
    )
    low_confidence: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Others with under three of four votes for the verdict, as when "
        "the two orders differ.",
    )
    random: float = Field(0.3, gt=0, le=1, description="All others.")


class ReviewQueueIn(Contract):
    """POST /v1/models/{name}/versions/{number}/reviews."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"size": 50},
                {"size": 100, "source": "ds_0193a5b2c4d15e6f7a8b9c0d", "against": "helpful:3"},
            ]
        }
    )

    size: int = Field(50, ge=10, le=1000, description="Items to review.")
    source: str = Field(
        "heldout",
        min_length=1,
        max_length=100,
        description="'heldout': the pairs that the version was validated on. Or the id of a "
        "dataset of kind 'labelled' (its labels are not shown) or 'pairs'.",
    )
    against: str | None = Field(
        None,
        max_length=200,
        description="The version to look for disagreements with: name, name:alias or name:number. "
        "Default: the version's parent, else what `latest` means, if that is another one.",
    )
    strata: ReviewShares = Field(default_factory=ReviewShares)
    votes: int = Field(1, ge=1, le=64, description="In each order. 1 is greedy.")
    overlap: int = Field(1, ge=1, le=5, description="Reviewers for each item.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of what is drawn and shown as A.")


class ReviewSettings(Contract):
    """A review queue's job as its workers read it: every choice made, every name resolved."""

    name: str = "review"
    version: str = Field(description="Id of the model version.")
    ref: str
    against: str | None = Field(description="Id of the other version.")
    against_ref: str | None
    source: str
    size: int
    strata: ReviewShares
    votes: int
    overlap: int
    seed: int


class ReviewItemOut(BaseModel):
    """What a reviewer sees: nothing about what any model said."""

    id: str
    context: list[dict[str, str]] = Field(
        description="The conversation before the instruction, [{role, content}]; often empty."
    )
    instruction: str
    response_a: str
    response_b: str
    held_until: dt.datetime = Field(description="Until then no other reviewer gets its place.")


class ReviewNextOut(BaseModel):
    item: ReviewItemOut | None = Field(description="null: there is nothing for this reviewer now.")
    left: int = Field(description="Items that this reviewer could still get, this one included.")


class ReviewAnswerIn(Contract):
    """POST /v1/reviews/{item}/answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"reviewer": "ada", "verdict": "A", "comment": "B is wrong"}]
        }
    )

    reviewer: Reviewer
    verdict: PersonVerdict = Field(description="In the letters as shown.")
    comment: str | None = Field(None, max_length=5000)


class ReviewSkipIn(Contract):
    """POST /v1/reviews/{item}/skip."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reviewer": "ada"}]})

    reviewer: Reviewer


class ReviewSkippedOut(BaseModel):
    item: str
    reviewer: str


class ReviewAnswerOut(BaseModel):
    """An answer, and only now what the model said; all letters as shown to the reviewer."""

    item: str
    reviewer: str
    verdict: PersonVerdict
    comment: str | None
    seconds: float = Field(description="From being shown to the answer.")
    model: str = Field(description="Exact version, name:number.")
    model_verdict: ModelVerdict
    agrees: bool
    confidence: float = Field(description="Share of the model's votes for its verdict.")
    orders_agree: bool
    stratum: Stratum
    against: str | None = Field(description="The other version, name:number.")
    against_verdict: ModelVerdict | None


class Agreement(BaseModel):
    """Of a version with people; an item counts once, by its reviewers' majority (level: a tie)."""

    n: int = Field(description="Items with an answer.")
    agreement: float | None = Field(description="Share with the model's verdict equal to people's.")
    ci95: tuple[float, float] | None = Field(description="Wilson interval of it.")
    kappa: float | None = Field(description="Cohen's; null where chance alone gives agreement 1.")
    kappa_se: float | None
    kappa_ci95: tuple[float, float] | None


class SourceAgreement(Agreement):
    """The same estimated for all pairs of the source: each item counts for those it stands for."""

    effective_n: float = Field(description="Equally weighted items that would tell as much (Kish).")
    pairs: float = Field(description="Pairs of the source that the answered items stand for.")


class StratumAgreement(Agreement):
    items: int = Field(description="In the queue.")
    pairs: float = Field(description="Pairs of the source that these stand for.")


class ReviewersAgreement(BaseModel):
    """Of people with each other, where an item has several answers: what a model can hope for."""

    items: int
    agreement: float | None = Field(description="Mean share of reviewer pairs that agree.")
    kappa: float | None = Field(description="Fleiss' kappa.")


class Confusion(BaseModel):
    model: ModelVerdict
    person: PersonVerdict
    n: int


class DriftComparison(BaseModel):
    """Did agreement fall? One-sided Fisher's exact test on the estimates for the source."""

    state: DriftState = Field(description="watch: p < 0.05; alarm: p < 0.01; both need enough.")
    enough: bool = Field(description="At least 30 items on each side; else there is no test.")
    before: SourceAgreement
    after: SourceAgreement
    fell: float | None = Field(description="Agreement before less agreement after.")
    p: float | None


class ReviewSummary(Agreement):
    """GET /v1/models/{name}/versions/{number}/reviews/summary."""

    version: str = Field(description="name:number.")
    items: int = Field(description="In the version's queues.")
    answers: int
    reviewers: int
    skipped: int
    without_ties: Agreement = Field(
        description="Only items on which both the model and people named A or B."
    )
    source: SourceAgreement
    strata: dict[Stratum, StratumAgreement]
    confusion: list[Confusion]
    between_reviewers: ReviewersAgreement
    drift: DriftComparison | None = Field(
        description="Against the version before it that people have reviewed; null without one."
    )


class DriftPoint(SourceAgreement):
    version: str = Field(description="name:number.")
    first: dt.datetime = Field(description="When the first of these answers was given.")
    last: dt.datetime


class ReviewDrift(BaseModel):
    """GET /v1/models/{name}/reviews/drift: estimates for the source throughout."""

    model: str
    state: DriftState = Field(description="The worse of the two comparisons.")
    versions: list[DriftPoint] = Field(description="By number, the newest 20.")
    windows: list[DriftPoint] = Field(
        description="The newest reviewed version's items by time of answer, 30 each, the newest 20."
    )
    between_versions: DriftComparison | None = Field(
        description="The newest reviewed version against the one before it."
    )
    over_time: DriftComparison | None = Field(
        description="The newest full window of that version against all before it."
    )
