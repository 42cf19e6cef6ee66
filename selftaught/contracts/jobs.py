"""Datasets, jobs, iterations, events, and the data that they made."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, Problem, State

JobKind = Literal["loop", "registration", "evaluation", "review", "batch"]
DatasetKind = Literal["instructions", "labelled", "benchmark"]


class DatasetOut(BaseModel):
    id: str
    name: str
    kind: DatasetKind
    benchmark: str | None = Field(description="Which one, of kind 'benchmark'.")
    rows: int
    bytes: int
    sha256: str
    created_at: dt.datetime


class JobIn(Contract):
    """POST /v1/jobs."""

    dataset: str = Field(description="Id of an uploaded dataset of instructions.")
    labelled_dataset: str | None = Field(
        None, description="Id of a labelled dataset: every version is scored on it, none is trained"
    )
    recipe: str | dict[str, Any] = Field("quickstart", description="A recipe's name, or inline.")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Merged into the recipe, key by key."
    )
    model: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Name under which versions are registered; default: the recipe's name.",
    )


class JobOut(BaseModel):
    id: str
    kind: JobKind
    state: State
    model: str
    dataset: str | None
    labelled_dataset: str | None
    recipe: dict[str, Any] = Field(description="All settings; those of other kinds are their own.")
    current_iteration: int | None
    iterations_done: int
    error: Problem | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    cancel_requested_at: dt.datetime | None


class EventOut(BaseModel):
    seq: int
    type: str
    data: dict[str, Any]
    created_at: dt.datetime


class StageOut(BaseModel):
    kind: str
    state: State
    chunks: int
    chunks_done: int
    counts: dict[str, int]
    metrics: dict[str, Any]
    seconds: float | None = Field(description="Wall-clock seconds from first to last chunk.")


class IterationOut(BaseModel):
    id: str
    job: str
    number: int = Field(description="0 scores the seed; 1..n train.")
    state: State
    stages: list[StageOut]
    counts: dict[str, int]
    kept_share: float | None = Field(
        description="Judgments whose verdict equals the label / sampled judgments (rejection "
        "sampling); what later filters, one per input and balance leave is training_examples."
    )
    metrics: dict[str, Any]
    tokens: int = Field(description="Sampled tokens plus trained tokens.")
    seconds: float | None
    model_version: str | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


class DataFile(BaseModel):
    """One chunk's part."""

    rows: int
    bytes: int
    sha256: str


class DataOut(BaseModel):
    """What one stage of one iteration published."""

    iteration: int
    name: str = Field(description="A stage's kind, '<kind>_dropped' or 'preferences'.")
    kind: str
    rows: int
    bytes: int
    files: list[DataFile] = Field(description="In order; a download joins them.")
    url: str


class ManifestOut(BaseModel):
    """Where an iteration's data came from."""

    job: str
    iteration: int
    judge: str | None = Field(description="The version that judged, name:number.")
    version: str | None = Field(description="The version that the iteration made.")
    dataset: dict[str, Any] | None
    template: dict[str, str] | None
    recipe: dict[str, Any]
    code_version: str
    counts: dict[str, int]
    data: list[DataOut]
