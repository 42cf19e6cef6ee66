"""Reviews: people's verdicts on sampled judgments of a version, blind to what it said."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from selftaught.contracts.base import Contract, example

Stratum = Literal["disagreement", "low_confidence", "random"]
PersonVerdict = Literal["A", "B", "tie"]
ModelVerdict = Literal["A", "B", "tie", "unparsable"]
DriftState = Literal["ok", "watch", "alarm"]
Reviewer = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Who reviews: any name, always the same.",
        examples=["ada"],
    ),
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
        description="'heldout': the pairs that the version was validated on. 'traffic': what any "
        "version of the model was asked, where the verdict log keeps texts. Or the id of a dataset "
        "of kind 'labelled' (its labels are not shown) or 'pairs'.",
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

    id: str = Field(description="For the answer.")
    context: list[dict[str, str]] = Field(
        description="The conversation before the instruction, [{role, content}]; often empty."
    )
    instruction: str = Field(description="What was asked.")
    response_a: str = Field(description="One response; which one is drawn.")
    response_b: str = Field(description="The other.")
    held_until: dt.datetime = Field(description="Until then no other reviewer gets its place.")


class ReviewNextOut(BaseModel):
    """The next item for a reviewer, if there is one."""

    model_config = example(
        item={
            "id": "item_019ac5a92b58d3a02d3f4586",
            "context": [],
            "instruction": "Reverse these letters: k f a b",
            "response_a": "b a k f",
            "response_b": "b a f k",
            "held_until": "2026-11-27T10:30:00Z",
        },
        left=12,
    )

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
    comment: str | None = Field(None, max_length=5000, description="For whoever reads it.")


class ReviewSkipIn(Contract):
    """POST /v1/reviews/{item}/skip."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reviewer": "ada"}]})

    reviewer: Reviewer


class ReviewSkippedOut(BaseModel):
    """An item that this reviewer does not get again."""

    model_config = example(item="item_019ac5a92b58d3a02d3f4586", reviewer="ada")

    item: str = Field(description="The item's id.")
    reviewer: str = Field(description="Who left it.")


_ANSWER = {
    "item": "item_019ac5a92b58d3a02d3f4586",
    "reviewer": "ada",
    "verdict": "B",
    "comment": None,
    "seconds": 21.4,
    "model": "tour:1",
    "model_verdict": "A",
    "agrees": False,
    "confidence": 0.5,
    "orders_agree": False,
    "stratum": "low_confidence",
    "against": "tour:0",
    "against_verdict": "A",
}


class ReviewAnswerOut(BaseModel):
    """An answer, and only now what the model said; all letters as shown to the reviewer."""

    model_config = example(**_ANSWER)

    item: str = Field(description="The item's id.")
    reviewer: str = Field(description="Who answered.")
    verdict: PersonVerdict = Field(description="The reviewer's.")
    comment: str | None = Field(description="As given.")
    seconds: float = Field(description="From being shown to the answer.")
    model: str = Field(description="Exact version, name:number.")
    model_verdict: ModelVerdict = Field(description="What that version said.")
    agrees: bool = Field(description="The two verdicts are equal.")
    confidence: float = Field(description="Share of the model's votes for its verdict.")
    orders_agree: bool = Field(description="The version said the same in both orders.")
    stratum: Stratum = Field(description="Why the item was drawn.")
    against: str | None = Field(description="The other version, name:number.")
    against_verdict: ModelVerdict | None = Field(description="What that one said.")


class ReviewedOut(BaseModel):
    """An item that nobody is to review any more, with everything that was said of it."""

    model_config = example(
        id="item_019ac5a92b58d3a02d3f4586",
        context=[],
        instruction="Reverse these letters: k f a b",
        response_a="b a k f",
        response_b="b a f k",
        answers=[_ANSWER],
    )

    id: str = Field(description="The item's id; the cursor of this list.")
    context: list[dict[str, str]] = Field(description="The conversation before the instruction.")
    instruction: str = Field(description="What was asked.")
    response_a: str = Field(description="As it was shown.")
    response_b: str = Field(description="As it was shown.")
    answers: list[ReviewAnswerOut] = Field(description="In order of time.")


class Agreement(BaseModel):
    """Of a version with people; an item counts once, by its reviewers' majority (level: a tie)."""

    n: int = Field(description="Items with an answer.")
    agreement: float | None = Field(description="Share with the model's verdict equal to people's.")
    ci95: tuple[float, float] | None = Field(description="Wilson interval of it.")
    kappa: float | None = Field(description="Cohen's; null where chance alone gives agreement 1.")
    kappa_se: float | None = Field(description="Standard error of `kappa`.")
    kappa_ci95: tuple[float, float] | None = Field(description="Of `kappa`.")


class SourceAgreement(Agreement):
    """The same estimated for all pairs of the source: each item counts for those it stands for."""

    effective_n: float = Field(description="Equally weighted items that would tell as much (Kish).")
    pairs: float = Field(description="Pairs of the source that the answered items stand for.")


class StratumAgreement(Agreement):
    """Agreement on the items that were drawn for one reason."""

    items: int = Field(description="In the queue.")
    pairs: float = Field(description="Pairs of the source that these stand for.")


class ReviewersAgreement(BaseModel):
    """Of people with each other, where an item has several answers: what a model can hope for."""

    items: int = Field(description="With several answers.")
    agreement: float | None = Field(description="Mean share of reviewer pairs that agree.")
    kappa: float | None = Field(description="Fleiss' kappa.")


class Confusion(BaseModel):
    """One cell of the confusion matrix."""

    model: ModelVerdict = Field(description="The model's verdict.")
    person: PersonVerdict = Field(description="People's.")
    n: int = Field(description="Items with both.")


class DriftComparison(BaseModel):
    """Did agreement fall? One-sided Fisher's exact test on the estimates for the source."""

    state: DriftState = Field(description="watch: p < 0.05; alarm: p < 0.01; both need enough.")
    enough: bool = Field(description="At least 30 items on each side; else there is no test.")
    before: SourceAgreement
    after: SourceAgreement
    fell: float | None = Field(description="Agreement before less agreement after.")
    p: float | None = Field(description="Chance of such a fall if agreement were the same.")


_AGREEMENT = {
    "n": 50,
    "agreement": 0.82,
    "ci95": [0.692, 0.902],
    "kappa": 0.66,
    "kappa_se": 0.1,
    "kappa_ci95": [0.464, 0.856],
}
_OF_SOURCE = {**_AGREEMENT, "effective_n": 41.2, "pairs": 200.0}


class ReviewSummary(Agreement):
    """GET /v1/models/{name}/versions/{number}/reviews/summary."""

    model_config = example(
        **_AGREEMENT,
        version="tour:1",
        items=50,
        answers=50,
        reviewers=2,
        skipped=0,
        without_ties=_AGREEMENT,
        source=_OF_SOURCE,
        strata={"random": {**_AGREEMENT, "items": 50, "pairs": 200.0}},
        confusion=[{"model": "A", "person": "A", "n": 22}],
        between_reviewers={"items": 0, "agreement": None, "kappa": None},
        drift=None,
    )

    version: str = Field(description="name:number.")
    items: int = Field(description="In the version's queues.")
    answers: int = Field(description="Of all reviewers together.")
    reviewers: int = Field(description="People who answered.")
    skipped: int = Field(description="Items that a reviewer left.")
    without_ties: Agreement = Field(
        description="Only items on which both the model and people named A or B."
    )
    source: SourceAgreement
    strata: dict[Stratum, StratumAgreement] = Field(description="By why an item was drawn.")
    confusion: list[Confusion] = Field(description="How often which verdict met which.")
    between_reviewers: ReviewersAgreement
    drift: DriftComparison | None = Field(
        description="Against the version before it that people have reviewed; null without one."
    )


class DriftPoint(SourceAgreement):
    """Agreement of one version, or within one stretch of answers."""

    version: str = Field(description="name:number.")
    first: dt.datetime = Field(description="When the first of these answers was given.")
    last: dt.datetime = Field(description="When the last of them was given.")


class ReviewDrift(BaseModel):
    """GET /v1/models/{name}/reviews/drift: estimates for the source throughout."""

    model_config = example(
        model="tour",
        state="ok",
        versions=[
            {
                **_OF_SOURCE,
                "version": "tour:1",
                "first": "2026-11-27T10:00:00Z",
                "last": "2026-11-27T11:30:00Z",
            }
        ],
        windows=[],
        between_versions=None,
        over_time=None,
    )

    model: str = Field(description="The model's name.")
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
