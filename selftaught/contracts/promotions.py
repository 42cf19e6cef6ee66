"""Promotions: what the gate found, and who moved an alias in spite of it."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selftaught.contracts.base import Contract, example

Rule = Literal[
    "first", "holder", "seed", "margin", "labelled", "position_bias", "parse_failures", "reviews"
]


class Finding(BaseModel):
    """What one rule of the gate says of a version (docs/promotion.md has the rules)."""

    rule: Rule = Field(
        description="first: nothing to beat; holder: the alias names it already; seed: untrained."
    )
    passed: bool = Field(description="Whether the version may go on.")
    set: str | None = Field(None, description="heldout, labelled, or labelled/<dataset id>.")
    got: float | None = Field(None, description="The version's number; null: it has none.")
    needed: float | None = Field(None, description="What it had to reach, or to stay under.")
    detail: str = Field(description="The same in words.")


class PromoteIn(Contract):
    """POST /v1/models/{name}/versions/{number}/promote."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"alias": "latest", "reason": "reviewed on Friday"},
                {"alias": "latest", "force": True, "reason": "the incumbent leaks prompts"},
            ]
        }
    )

    alias: str = Field("latest", description="The alias to move; its present version is the one "
                       "to beat.")  # fmt: skip
    force: bool = Field(
        False, description="Promote even if a rule fails. Needs a key with scope `promote`."
    )
    reason: str | None = Field(
        None, max_length=500, description="Why, for the record; required with `force`."
    )

    prepare: bool = Field(
        True, description="First have the evaluators open the version; refuse one that cannot be."
    )

    @model_validator(mode="after")
    def _forced_for_a_reason(self) -> PromoteIn:
        if self.force and not (self.reason or "").strip():
            raise ValueError("a forced promotion needs a reason")
        return self


class PromotionOut(BaseModel):
    """A decision of the gate about a version, as it was recorded."""

    model_config = example(
        id="pro_019ac5a9d2e14b7f8a6c5d4e",
        version="tour:2",
        alias="latest",
        incumbent="tour:1",
        promoted=True,
        forced=True,
        findings=[
            {
                "rule": "margin",
                "passed": False,
                "set": "heldout",
                "got": 0.7619,
                "needed": 0.8036,
                "detail": "heldout: strict accuracy 0.7619, needed 0.8036: failed",
            }
        ],
        reason="tour:1 leaks its prompt",
        job=None,
        key="key_019ac5a9c1d03a6e7f8b9c0d",
        by="ada",
        created_at="2026-11-27T09:30:00Z",
    )

    id: str = Field(description="Of the decision; newer ones sort later.")
    version: str = Field(description="name:number.")
    alias: str = Field(description="Which was to move.")
    incumbent: str | None = Field(description="What the alias named before; null: nothing.")
    promoted: bool = Field(description="The alias names the version now.")
    forced: bool = Field(description="A rule failed, and the version was promoted in spite of it.")
    findings: list[Finding] = Field(description="Of every rule that was asked.")
    reason: str = Field(description="Why it was tried, as given.")
    job: str | None = Field(description="The job whose gate this was; null: somebody asked.")
    key: str | None = Field(description="Id of the API key that was sent.")
    by: str | None = Field(description="The key's name.")
    created_at: dt.datetime = Field(description="When it was decided.")
