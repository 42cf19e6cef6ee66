"""Datasets, jobs, iterations, events, and the data that they made."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, Name, Problem, State, example

JobKind = Literal["loop", "registration", "evaluation", "review", "batch"]
DatasetKind = Literal["instructions", "labelled", "pairs", "benchmark"]


class DatasetOut(BaseModel):
    """A dataset: an uploaded file's rows, checked and kept."""

    model_config = example(
        id="ds_019ac5a0b2c07e1f4a6b8c9d",
        name="prompts",
        kind="instructions",
        benchmark=None,
        rows=4000,
        bytes=361_204,
        sha256="7a1f0c9e5b6d4c3a8f2e1d0c9b8a7f6e5d4c3b2a190807f6e5d4c3b2a1908070",
        created_at="2026-11-27T09:00:00Z",
    )

    id: str = Field(description="What jobs and evaluations name it by.")
    name: str = Field(description="As given, or the file's.")
    kind: DatasetKind = Field(description="What its rows are.")
    benchmark: str | None = Field(description="Which one, of kind 'benchmark'.")
    rows: int = Field(description="Rows that were kept: all of the file's.")
    bytes: int = Field(description="Size of the normalised file.")
    sha256: str = Field(description="Of the normalised file.")
    created_at: dt.datetime = Field(description="When it was uploaded.")


class JobIn(Contract):
    """POST /v1/jobs."""

    model_config = example(
        dataset="ds_019ac5a0b2c07e1f4a6b8c9d",
        recipe="quickstart",
        overrides={"iterations": 3, "judge": {"samples": 8}},
        model="tour",
    )

    dataset: str = Field(description="Id of an uploaded dataset of instructions.")
    labelled_dataset: str | None = Field(
        None, description="Id of a labelled dataset: every version is scored on it, none is trained"
    )
    recipe: str | dict[str, Any] = Field("quickstart", description="A recipe's name, or inline.")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Merged into the recipe, key by key."
    )
    model: Name | None = Field(
        None,
        description="Name under which versions are registered; default: the recipe's name.",
    )


class JobProgress(BaseModel):
    """How far a job is, and how long it will still take if it goes on as it does."""

    share: float = Field(
        description="Of its work that is done, 0..1: every iteration counts the same, and every "
        "stage in it."
    )
    iteration: int = Field(description="The newest one; 0 scores the seed.")
    iterations: int = Field(description="The last one that there will be.")
    stage: str | None = Field(None, description="The stage under way; null once it has ended.")
    chunks: int | None = Field(None, description="Of that stage.")
    chunks_done: int | None = Field(None, description="Of them, those that have succeeded.")
    eta_seconds: float | None = Field(
        None,
        description="Until its end; null if that cannot be known, as before each kind of "
        "stage that asks a model has run once.",
    )
    eta_basis: str | None = Field(
        None, description="What the estimate rests on, or why there is none."
    )


class JobResult(BaseModel):
    """What a job has come to so far: the version that its gate promoted last, against the seed."""

    version: str | None = Field(description="name:number; null once it is deleted.")
    iteration: int = Field(description="Which one made it; 0 is the seed: nothing passed the gate.")
    strict_accuracy: float | None = Field(
        description="Share of the job's held-out pairs that it is right on in both orders."
    )
    seed_strict_accuracy: float | None = Field(description="The seed's, on the same pairs.")


class JobOut(BaseModel):
    """A job: how far it is, and everything that it was asked to do."""

    model_config = example(
        id="job_019ac5a1c3d08f2a5b7c9d0e",
        kind="loop",
        state="running",
        model="tour",
        dataset="ds_019ac5a0b2c07e1f4a6b8c9d",
        labelled_dataset=None,
        recipe={"name": "quickstart", "base_model": "smallworld", "iterations": 3, "seed": 0},
        current_iteration=2,
        iterations_done=1,
        progress={
            "share": 0.5417,
            "iteration": 2,
            "iterations": 3,
            "stage": "judge",
            "chunks": 36,
            "chunks_done": 6,
            "eta_seconds": 168.2,
            "eta_basis": "every stage takes as long as it last did",
        },
        result={
            "version": "tour:1",
            "iteration": 1,
            "strict_accuracy": 0.8036,
            "seed_strict_accuracy": 0.3571,
        },
        error=None,
        created_at="2026-11-27T09:01:00Z",
        started_at="2026-11-27T09:01:01Z",
        finished_at=None,
        cancel_requested_at=None,
        data_removed_at=None,
        paused_at=None,
        retried_at=None,
    )

    id: str = Field(description="What its events, iterations and data are found by.")
    kind: JobKind = Field(
        description="'loop': the method; the others belong to models, evaluations and so on."
    )
    state: State = Field(
        description="pending, running, pausing, paused, cancelling, then how it ended."
    )
    model: str = Field(description="Name under which its versions are registered.")
    dataset: str | None = Field(description="Id of its dataset; none of a registration.")
    labelled_dataset: str | None = Field(description="Id of the set its versions are scored on.")
    recipe: dict[str, Any] = Field(description="All settings; those of other kinds are their own.")
    current_iteration: int | None = Field(description="The newest one; 0 scores the seed.")
    iterations_done: int = Field(description="Iterations that have succeeded, without 0.")
    progress: JobProgress = Field(description="How far it is, and when it may end.")
    result: JobResult | None = Field(
        None, description="Of kind 'loop', once its seed is scored; null before and of other kinds."
    )
    error: Problem | None = Field(description="Why it failed.")
    created_at: dt.datetime = Field(description="When it was posted.")
    started_at: dt.datetime | None = Field(description="When its first work began.")
    finished_at: dt.datetime | None = Field(description="When it ended, however it did.")
    cancel_requested_at: dt.datetime | None = Field(description="When it was asked to stop.")
    data_removed_at: dt.datetime | None = Field(
        None, description="When its files were removed, by their age."
    )
    paused_at: dt.datetime | None = Field(description="Since when it is paused; null if it is not.")
    retried_at: dt.datetime | None = Field(description="When it last went on after it had failed.")


class EventOut(BaseModel):
    """Something that happened to a job."""

    model_config = example(
        seq=42,
        type="version.published",
        data={"version": "tour:1", "sha256": "0d9c5e5f1a2b"},
        created_at="2026-11-27T09:04:10Z",
    )

    seq: int = Field(description="Number within the job, from 1; never reused.")
    type: str = Field(description="What happened, as `stage.progress` or `job.succeeded`.")
    data: dict[str, Any] = Field(description="Depends on the type.")
    created_at: dt.datetime = Field(description="When it happened.")


class StageOut(BaseModel):
    """One step of an iteration, worked on in chunks."""

    kind: str = Field(description="Such as select, pair, judge, curate, train, validate, gate.")
    state: State = Field(description="pending until it is planned, running, then how it ended.")
    chunks: int = Field(description="Pieces of work; 0 before it is planned.")
    chunks_done: int = Field(description="Of them, those that have succeeded.")
    counts: dict[str, int] = Field(description="Rows, tokens .. so far, by name.")
    metrics: dict[str, Any] = Field(description="What it measured; depends on the kind.")
    seconds: float | None = Field(description="Wall-clock seconds from first to last chunk.")


class IterationOut(BaseModel):
    """One round of a job: its stages, what they kept, and the version that it made."""

    model_config = example(
        id="it_019ac5a2d4e1903b6c8d0e1f",
        job="job_019ac5a1c3d08f2a5b7c9d0e",
        number=1,
        state="succeeded",
        stages=[
            {
                "kind": "judge",
                "state": "succeeded",
                "chunks": 36,
                "chunks_done": 36,
                "counts": {"judgments_sampled": 13632},
                "metrics": {},
                "seconds": 41.5,
            }
        ],
        counts={"judgments_sampled": 13632, "judgments_kept": 7827, "training_examples": 2530},
        kept_share=0.574,
        metrics={
            "heldout": {"strict_accuracy": 0.8036, "position_bias": 0.013},
            "promoted": True,
            "reasons": ["heldout strict accuracy 0.8036, needed 0.3571: passed"],
        },
        tokens=1_254_310,
        seconds=122.0,
        model_version="tour:1",
        started_at="2026-11-27T09:02:00Z",
        finished_at="2026-11-27T09:04:02Z",
    )

    id: str = Field(description="For GET /v1/iterations/{iteration_id}.")
    job: str = Field(description="Id of its job.")
    number: int = Field(description="0 scores the seed; 1..n train.")
    state: State = Field(description="running, then how it ended.")
    stages: list[StageOut] = Field(description="In the order in which they run.")
    counts: dict[str, int] = Field(description="Of all stages together.")
    kept_share: float | None = Field(
        description="Judgments whose verdict equals the label / sampled judgments (rejection "
        "sampling); what later filters, one per input and balance leave is training_examples."
    )
    metrics: dict[str, Any] = Field(
        description="How good its version is on each set, and the gate's decision with its reasons."
    )
    tokens: int = Field(description="Sampled tokens plus trained tokens.")
    seconds: float | None = Field(description="From its start to its end, or until now.")
    model_version: str | None = Field(description="The version that it made, name:number.")
    started_at: dt.datetime | None = Field(description="When its first stage began.")
    finished_at: dt.datetime | None = Field(description="When its last stage ended.")


class DataFile(BaseModel):
    """One chunk's part."""

    rows: int = Field(description="Rows in it.")
    bytes: int = Field(description="Its size as JSONL.")
    sha256: str = Field(description="Of its JSONL.")


_DATA = {
    "iteration": 1,
    "name": "curate",
    "kind": "examples",
    "rows": 2530,
    "bytes": 1_904_221,
    "files": [
        {
            "rows": 2530,
            "bytes": 1_904_221,
            "sha256": "5f2d8c1b7e6a4093c2b1a0f9e8d7c6b5a493827160f5e4d3c2b1a09f8e7d6c5b",
        }
    ],
    "url": "/v1/jobs/job_019ac5a1c3d08f2a5b7c9d0e/data/1/curate",
}


class DataOut(BaseModel):
    """What one stage of one iteration published."""

    model_config = example(**_DATA)

    iteration: int = Field(description="Number of the iteration.")
    name: str = Field(description="A stage's kind, '<kind>_dropped' or 'preferences'.")
    kind: str = Field(description="What its rows are.")
    rows: int = Field(description="Rows of all its files.")
    bytes: int = Field(description="Size of all its files as JSONL.")
    files: list[DataFile] = Field(description="In order; a download joins them.")
    url: str = Field(description="Where it is downloaded.")


class ManifestOut(BaseModel):
    """Where an iteration's data came from."""

    model_config = example(
        job="job_019ac5a1c3d08f2a5b7c9d0e",
        iteration=1,
        judge="tour:0",
        version="tour:1",
        dataset={
            "id": "ds_019ac5a0b2c07e1f4a6b8c9d",
            "sha256": "7a1f0c9e5b6d4c3a8f2e1d0c9b8a7f6e5d4c3b2a190807f6e5d4c3b2a1908070",
        },
        template={
            "name": "smallworld",
            "sha256": "6a0bb712516522fc89a0f4c1457f6dc1695a09440ea0e0304fdf7d59b4e1e0dc",
        },
        recipe={"name": "quickstart", "base_model": "smallworld", "iterations": 3, "seed": 0},
        code_version="0.1.0",
        counts={"judgments_sampled": 13632, "judgments_kept": 7827, "training_examples": 2530},
        data=[_DATA],
    )

    job: str = Field(description="Id of the job.")
    iteration: int = Field(description="Number of the iteration.")
    judge: str | None = Field(description="The version that judged, name:number.")
    version: str | None = Field(description="The version that the iteration made.")
    dataset: dict[str, Any] | None = Field(description="Id and sha256 of the job's dataset.")
    template: dict[str, str] | None = Field(description="Name and sha256 of the judge template.")
    recipe: dict[str, Any] = Field(description="All settings of the job.")
    code_version: str = Field(description="Version of this software.")
    counts: dict[str, int] = Field(description="Of all stages together.")
    data: list[DataOut] = Field(description="Everything that the iteration published.")
