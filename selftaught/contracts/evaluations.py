"""Evaluations of versions on benchmarks."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, Problem, State

Scoring = Literal["strict", "official"]


class EvaluationIn(Contract):
    """POST /v1/evaluations."""

    dataset: str = Field(description="Id of an uploaded benchmark or labelled dataset.")
    model: str = Field(description="name, name:alias or name:number.")
    scoring: list[Scoring] = Field(
        ["strict", "official"],
        min_length=1,
        max_length=2,
        description="'strict': both orders, right only if right in both. 'official': to the letter "
        "of the benchmark's own script.",
    )
    template: str | None = Field(None, description="Judge template; default: the version's own.")
    votes: int = Field(1, ge=1, le=64, description="1 is greedy; more are sampled and counted.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of orders, votes and intervals.")
    limit: int | None = Field(None, ge=1, description="Judge so many examples, drawn by the seed.")
    max_tokens: int | None = Field(
        None, ge=1, le=32768, description="Length limit of an answer; default: the version's."
    )


class EvaluationSettings(Contract):
    """An evaluation's job as its workers read it: every choice made, every name resolved."""

    name: str = "evaluation"
    version: str = Field(description="Id of the model version.")
    ref: str
    benchmark: str
    labelled: bool = Field(description="The dataset is of kind 'labelled'.")
    dataset_sha256: str
    scoring: list[Scoring]
    template: str
    template_sha256: str
    votes: int
    seed: int
    limit: int | None
    max_tokens: int


class Figure(BaseModel):
    name: str = Field(description="'overall', 'section/..', 'subset/..', or a rate.")
    value: float
    low: float = Field(description="95 % bootstrap interval.")
    high: float


class ScoreOut(BaseModel):
    scoring: Scoring
    template: dict[str, str] = Field(
        description="Name and sha256 of what the judge was asked with."
    )
    figures: list[Figure] = Field(description="The most important first.")
    counts: dict[str, int]


class EvaluationOut(BaseModel):
    id: str = Field(description="Also the id of its job: events and cancel are the job's.")
    state: State
    model: str = Field(description="Exact version, name:number.")
    dataset: str
    benchmark: str
    settings: EvaluationSettings
    examples_done: int
    counts: dict[str, int]
    scores: list[ScoreOut]
    error: Problem | None
    created_at: dt.datetime
    finished_at: dt.datetime | None


class PairedOut(BaseModel):
    """Two evaluations on the same examples; `difference` is the second's mean less the first's."""

    scoring: Scoring
    n: int
    first: float
    second: float
    difference: float
    low: float = Field(description="95 % paired bootstrap interval of the difference.")
    high: float
    only_first: int = Field(description="Examples on which only the first did better.")
    only_second: int
    p: float = Field(description="Exact McNemar test, two-sided.")


class ComparisonOut(BaseModel):
    first: str
    second: str
    models: list[str] = Field(description="The two versions, name:number.")
    paired: list[PairedOut] = Field(description="For each scoring that both have.")
