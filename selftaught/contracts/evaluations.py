"""Evaluations of versions on benchmarks."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, Problem, State, example

Scoring = Literal["strict", "official"]


class EvaluationIn(Contract):
    """POST /v1/evaluations."""

    model_config = example(
        dataset="ds_019ac5a4f60381b5d8eaf031", model="tour:latest", scoring=["strict"], limit=500
    )

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

    name: str = Field("evaluation", description="Always this.")
    version: str = Field(description="Id of the model version.")
    ref: str = Field(description="The model version, name:number.")
    benchmark: str = Field(description="Name of the benchmark.")
    labelled: bool = Field(description="The dataset is of kind 'labelled'.")
    dataset_sha256: str = Field(description="Of the dataset's file.")
    scoring: list[Scoring] = Field(description="How it is scored.")
    template: str = Field(description="Name of the judge template.")
    template_sha256: str = Field(description="Of the judge template.")
    votes: int = Field(description="Judgments for each question.")
    seed: int = Field(description="Of orders, votes and intervals.")
    limit: int | None = Field(description="So many examples; null: all.")
    max_tokens: int = Field(description="Length limit of an answer.")


class Figure(BaseModel):
    """A score with its interval."""

    name: str = Field(description="'overall', 'section/..', 'subset/..', or a rate.")
    value: float = Field(description="The score itself.")
    low: float = Field(description="95 % bootstrap interval.")
    high: float = Field(description="Its upper end.")


class ScoreOut(BaseModel):
    """All figures of one way of scoring."""

    scoring: Scoring = Field(description="Which way.")
    template: dict[str, str] = Field(
        description="Name and sha256 of what the judge was asked with."
    )
    figures: list[Figure] = Field(description="The most important first.")
    counts: dict[str, int] = Field(description="Examples, ties, unreadable answers ..")


class EvaluationOut(BaseModel):
    """A version on a benchmark: how far it is, and its scores once it has succeeded."""

    model_config = example(
        id="eval_019ac5a507149fc6e9fb0142",
        state="succeeded",
        model="tour:1",
        dataset="ds_019ac5a4f60381b5d8eaf031",
        benchmark="pairs",
        settings={
            "name": "evaluation",
            "version": "ver_019ac5a3e5f2a14c7d9e1f20",
            "ref": "tour:1",
            "benchmark": "pairs",
            "labelled": True,
            "dataset_sha256": "c0b1a29384756f5e4d3c2b1a0f9e8d7c6b5a49382716051423324150f6e7d8c9",
            "scoring": ["strict"],
            "template": "smallworld",
            "template_sha256": "6a0bb712516522fc89a0f4c1457f6dc1695a09440ea0e0304fdf7d59b4e1e0dc",
            "votes": 1,
            "seed": 0,
            "limit": 500,
            "max_tokens": 64,
        },
        examples_done=500,
        counts={"examples": 500},
        scores=[
            {
                "scoring": "strict",
                "template": {"name": "smallworld", "sha256": "6a0bb712516522fc"},
                "figures": [{"name": "overall", "value": 0.705, "low": 0.664, "high": 0.744}],
                "counts": {"examples": 500},
            }
        ],
        error=None,
        created_at="2026-11-27T09:10:00Z",
        finished_at="2026-11-27T09:10:31Z",
    )

    id: str = Field(description="Also the id of its job: events and cancel are the job's.")
    state: State = Field(description="pending, running, cancelling, then how it ended.")
    model: str = Field(description="Exact version, name:number.")
    dataset: str = Field(description="Id of the benchmark's dataset.")
    benchmark: str = Field(description="Name of the benchmark.")
    settings: EvaluationSettings = Field(description="Every choice made, every name resolved.")
    examples_done: int = Field(description="Examples that have been judged.")
    counts: dict[str, int] = Field(description="What was asked and answered so far.")
    scores: list[ScoreOut] = Field(description="One for each way of scoring, at the end.")
    error: Problem | None = Field(description="Why it failed.")
    created_at: dt.datetime = Field(description="When it was posted.")
    finished_at: dt.datetime | None = Field(description="When it ended, however it did.")


class PairedOut(BaseModel):
    """Two evaluations on the same examples; `difference` is the second's mean less the first's."""

    scoring: Scoring = Field(description="Which way of scoring.")
    n: int = Field(description="Examples that both judged.")
    first: float = Field(description="Mean of the first.")
    second: float = Field(description="Mean of the second.")
    difference: float = Field(description="How much better the second is.")
    low: float = Field(description="95 % paired bootstrap interval of the difference.")
    high: float = Field(description="Its upper end.")
    only_first: int = Field(description="Examples on which only the first did better.")
    only_second: int = Field(description="Examples on which only the second did better.")
    p: float = Field(description="Exact McNemar test, two-sided.")


class ComparisonOut(BaseModel):
    """Two evaluations, compared on the examples that both judged."""

    model_config = example(
        first="eval_019ac5a507149fc6e9fb0142",
        second="eval_019ac5a61825a0d7fa0c1253",
        models=["tour:0", "tour:1"],
        paired=[
            {
                "scoring": "strict",
                "n": 500,
                "first": 0.408,
                "second": 0.705,
                "difference": 0.297,
                "low": 0.246,
                "high": 0.348,
                "only_first": 21,
                "only_second": 170,
                "p": 2.1e-30,
            }
        ],
    )

    first: str = Field(description="Id of the first evaluation.")
    second: str = Field(description="Id of the second evaluation.")
    models: list[str] = Field(description="The two versions, name:number.")
    paired: list[PairedOut] = Field(description="For each scoring that both have.")
