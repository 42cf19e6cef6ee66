"""What every contract shares: states, problems, pages."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Contract(BaseModel):
    """Unknown fields are errors: a misspelt setting must not be ignored."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class State(StrEnum):
    """States of jobs, iterations, stages and chunks (each uses the ones that fit it)."""

    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Problem(BaseModel):
    """RFC 9457 problem details, for responses and for failed jobs alike."""

    type: str = "about:blank"
    title: str
    status: int | None = None
    detail: str | None = None
    code: str
    param: str | None = None
    request_id: str | None = None
    fault: Literal["user", "system"] | None = Field(None, description="Whose failure a job's is.")
    errors: list[dict[str, Any]] = Field(default_factory=list)


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """A cursor page: pass the last item's id (or seq) as `after` to get the next one."""

    data: list[T]
    has_more: bool
