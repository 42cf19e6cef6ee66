"""Promotions: what the gate found, and who moved an alias in spite of it."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selftaught.contracts.base import Contract

Rule = Literal[
    "first", "holder", "margin", "labelled", "position_bias", "parse_failures", "reviews"
]


class Finding(BaseModel):
    """What one rule of the gate says of a version (docs/promotion.md has the rules)."""

    rule: Rule
    passed: bool
    set: str | None = Field(None, description="heldout, labelled, or labelled/<dataset id>.")
    got: float | None = Field(None, description="The version's number; null: it has none.")
    needed: float | None = Field(None, description="What it had to reach, or to stay under.")
    detail: str


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

    @model_validator(mode="after")
    def _forced_for_a_reason(self) -> PromoteIn:
        if self.force and not (self.reason or "").strip():
            raise ValueError("a forced promotion needs a reason")
        return self


class PromotionOut(BaseModel):
    """A decision of the gate about a version, as it was recorded."""

    id: str
    version: str = Field(description="name:number.")
    alias: str
    incumbent: str | None = Field(description="What the alias named before; null: nothing.")
    promoted: bool
    forced: bool = Field(description="A rule failed, and the version was promoted in spite of it.")
    findings: list[Finding]
    reason: str
    job: str | None = Field(description="The job whose gate this was; null: somebody asked.")
    key: str | None = Field(description="Id of the API key that was sent.")
    by: str | None = Field(description="The key's name.")
    created_at: dt.datetime
