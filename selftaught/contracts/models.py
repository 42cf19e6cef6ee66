"""Model versions, aliases, templates."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract
from selftaught.contracts.recipe import EngineSettings, SamplingSettings


class VersionOut(BaseModel):
    ref: str = Field(description="name:number, exact and immutable.")
    id: str = Field(description="Of a trained one also its folder's name, in <home>/versions.")
    model: str
    number: int
    job: str | None
    iteration: int | None
    parent: str | None
    sha256: str
    lineage: dict[str, Any]
    metrics: dict[str, Any]
    aliases: list[str]
    created_at: dt.datetime


class ModelOut(BaseModel):
    name: str
    versions: int
    aliases: dict[str, str] = Field(description="Alias -> name:number.")


class AliasMove(BaseModel):
    revision: int
    version: str
    reason: str
    created_at: dt.datetime


class AliasOut(BaseModel):
    model: str
    alias: str
    version: str
    revision: int
    history: list[AliasMove]


class AliasIn(Contract):
    """PUT /v1/models/{name}/aliases/{alias}; send If-Match with the revision you saw."""

    version: int = Field(ge=0)
    reason: str = Field("manual", max_length=500)


class TemplateOut(BaseModel):
    name: str
    kind: Literal["judge", "modify", "label", "best-of-four", "rating", "score"]
    sha256: str = Field(description="Of the content; the name does not count.")
    shipped: bool
    content: dict[str, Any]


class RegistrationIn(Contract):
    """POST /v1/models: a base model becomes a version as it is, to be evaluated or to judge."""

    base_model: str = Field(description="A base model the operator allows, by name.")
    inference: str = Field(
        "local", description="'local', 'vllm' or the name of an operator's endpoint."
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    name: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Default: the base model's."
    )
    template: str = Field("mt-bench", description="Judge template by name.")
    max_tokens: int = Field(1024, ge=1, description="Length limit of a judgment (tokens).")
    sampling: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(temperature=0.7, top_p=0.9),
        description="How votes are sampled where more than one is asked for.",
    )
