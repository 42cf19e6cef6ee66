"""Batches: many pairs to judge, as a job of their own."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from selftaught.contracts.base import Contract, Problem, example
from selftaught.contracts.judging import ALLOW_TIE, Instructed, JudgeIn, Ruling, Text

BatchState = Literal[
    "in_progress", "pausing", "paused", "completed", "failed", "cancelling", "cancelled"
]


class BatchOptions(Contract):
    """How every line of a batch is judged; in the query of POST /v1/judge/batches."""

    model_config = ConfigDict(strict=False)

    model: str | None = Field(
        None,
        max_length=200,
        description="name, name:alias or name:number, looked up once, now; default: what the "
        "header Selftaught-Model says, or else the only model's `latest`.",
    )
    template: str | None = Field(
        None,
        max_length=200,
        description="Judge template; default: the one that the version was trained with.",
    )
    votes: int = Field(1, ge=1, le=64, description="1 is greedy; more are sampled and counted.")
    both_orders: bool = Field(True, description="Judge in both orders; disagreement is a tie.")
    allow_tie: bool = Field(True, description=ALLOW_TIE)
    explain: bool = Field(False, description="Answer with what the model wrote, too.")


class BatchLine(Instructed):
    """One line of a batch: which of two responses is better?"""

    custom_id: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Your name for the line, only once in a file; default: its number.",
    )
    response_a: Text
    response_b: Text


class BatchSettings(Contract):
    """A batch's job as its workers read it: every choice made, every name resolved."""

    name: str = "batch"
    version: str = Field(description="Id of the model version.")
    ref: str
    template: str
    template_sha256: str
    votes: int
    both_orders: bool
    allow_tie: bool = True
    explain: bool
    lines: int

    def question(self, line: BatchLine) -> JudgeIn:
        """What POST /judge would be asked."""
        return JudgeIn(
            **line.model_dump(exclude={"custom_id"}),
            votes=self.votes,
            both_orders=self.both_orders,
            allow_tie=self.allow_tie,
            explain=self.explain,
        )


class BatchResult(BaseModel):
    """One line of a batch's results: `result` or `error`."""

    model_config = example(
        custom_id="q1",
        line=1,
        result={
            "verdict": "tie",
            "confidence": 0.0,
            "probability": {"a": 0.51999, "b": 0.48, "tie": 0.00001, "calibrated": True},
            "orders_agree": False,
            "orders": [
                {
                    "order": "AB",
                    "verdict": "A",
                    "share": 1.0,
                    "probability": {"a": 0.99999, "b": 0.000002, "tie": 0.000008},
                    "reasoning": None,
                },
                {
                    "order": "BA",
                    "verdict": "B",
                    "share": 1.0,
                    "probability": {"a": 0.000004, "b": 0.999984, "tie": 0.000012},
                    "reasoning": None,
                },
            ],
            "parse_failures": 0,
            "model": "tour:1",
            "job": "job_019ac5a1c3d08f2a5b7c9d0e",
            "template": "smallworld",
            "template_sha256": "6a0bb712516522fc89a0f4c1457f6dc1695a09440ea0e0304fdf7d59b4e1e0dc",
            "prompt_tokens": 122,
            "completion_tokens": 58,
        },
        error=None,
    )

    custom_id: str = Field(description="The line's name, or else its number.")
    line: int = Field(description="In the uploaded file, from 1.")
    result: Ruling | None = Field(None, description="As POST /judge answers.")
    error: Problem | None = Field(None, description="Why this line could not be judged.")


class RequestCounts(BaseModel):
    """How far a batch is."""

    total: int = Field(description="Lines of the batch.")
    completed: int = Field(description="Judged so far.")
    failed: int = Field(description="Could not be judged: their results say why.")


class BatchUsage(BaseModel):
    """Tokens so far."""

    prompt_tokens: int = Field(description="Each order's prompt once.")
    completion_tokens: int = Field(description="Of all votes.")


class BatchOut(BaseModel):
    """A batch: how its lines are judged, and how far it is."""

    model_config = example(
        id="batch_019ac5aa3c69e4b13e405697",
        state="in_progress",
        model="tour:1",
        template="smallworld",
        template_sha256="6a0bb712516522fc89a0f4c1457f6dc1695a09440ea0e0304fdf7d59b4e1e0dc",
        votes=1,
        both_orders=True,
        allow_tie=True,
        explain=False,
        request_counts={"total": 1000, "completed": 384, "failed": 0},
        verdicts={"A": 170, "B": 161, "tie": 53, "unparsable": 0},
        usage={"prompt_tokens": 46_848, "completion_tokens": 22_272},
        error=None,
        created_at="2026-11-27T10:00:00Z",
        in_progress_at="2026-11-27T10:00:01Z",
        completed_at=None,
        failed_at=None,
        cancelling_at=None,
        cancelled_at=None,
    )

    id: str = Field(description="Also the id of its job: events are the job's.")
    state: BatchState = Field(description="As of OpenAI's batches; also pausing, paused.")
    model: str = Field(description="Exact version that judges every line, name:number.")
    template: str = Field(description="Name of the judge template.")
    template_sha256: str = Field(description="Of the template's content.")
    votes: int = Field(description="For each line and order.")
    both_orders: bool = Field(description="Every line is judged in both orders.")
    allow_tie: bool = Field(description="A tie may be the verdict.")
    explain: bool = Field(description="Results say what the model wrote.")
    request_counts: RequestCounts
    verdicts: dict[Literal["A", "B", "tie", "unparsable"], int] = Field(description="So far.")
    usage: BatchUsage
    error: Problem | None = Field(description="Of a failed batch.")
    created_at: dt.datetime = Field(description="When it was posted.")
    in_progress_at: dt.datetime | None = Field(description="When its first work began.")
    completed_at: dt.datetime | None = Field(description="When every line had its result.")
    failed_at: dt.datetime | None = Field(description="When it failed.")
    cancelling_at: dt.datetime | None = Field(description="When it was asked to stop.")
    cancelled_at: dt.datetime | None = Field(description="When it had stopped.")
