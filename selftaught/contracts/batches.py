"""Batches: many pairs to judge, as a job of their own."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, Problem
from selftaught.contracts.judging import Instructed, JudgeIn, Ruling, Text

BatchState = Literal["in_progress", "completed", "failed", "cancelling", "cancelled"]


class BatchOptions(Contract):
    """How every line of a batch is judged; in the query of POST /v1/judge/batches."""

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
    explain: bool
    lines: int

    def question(self, line: BatchLine) -> JudgeIn:
        """What POST /judge would be asked."""
        return JudgeIn(
            **line.model_dump(exclude={"custom_id"}),
            votes=self.votes,
            both_orders=self.both_orders,
            explain=self.explain,
        )


class BatchResult(BaseModel):
    """One line of a batch's results: `result` or `error`."""

    custom_id: str
    line: int = Field(description="In the uploaded file, from 1.")
    result: Ruling | None = Field(None, description="As POST /judge answers.")
    error: Problem | None = Field(None, description="Why this line could not be judged.")


class RequestCounts(BaseModel):
    total: int = Field(description="Lines of the batch.")
    completed: int = Field(description="Judged so far.")
    failed: int = Field(description="Could not be judged: their results say why.")


class BatchUsage(BaseModel):
    """Tokens so far."""

    prompt_tokens: int = Field(description="Each order's prompt once.")
    completion_tokens: int


class BatchOut(BaseModel):
    id: str = Field(description="Also the id of its job: events are the job's.")
    state: BatchState
    model: str = Field(description="Exact version that judges every line, name:number.")
    template: str
    template_sha256: str
    votes: int
    both_orders: bool
    explain: bool
    request_counts: RequestCounts
    verdicts: dict[Literal["A", "B", "tie", "unparsable"], int] = Field(description="So far.")
    usage: BatchUsage
    error: Problem | None = Field(description="Of a failed batch.")
    created_at: dt.datetime
    in_progress_at: dt.datetime | None
    completed_at: dt.datetime | None
    failed_at: dt.datetime | None
    cancelling_at: dt.datetime | None
    cancelled_at: dt.datetime | None
