"""Projects, and keys to them."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, Name, example
from selftaught.contracts.limits import Limits

Scope = Literal["read", "write", "judge", "promote", "admin"]
"""read: GET. write: datasets, jobs, reviews and all else that is made. judge: ask the judge.
promote: move aliases, canaries. admin: keys, webhooks, limits, the audit log. None implies another.
"""
_KEY = {
    "id": "key_019ac5a6b1c2d3e4f5061728",
    "name": "ci",
    "prefix": "st_8fQz1b",
    "scopes": ["judge", "read"],
    "created_at": "2026-11-27T09:00:00Z",
    "expires_at": "2027-02-25T09:00:00Z",
    "revoked_at": None,
    "last_used_at": None,
}


class ProjectIn(Contract):
    """POST /v1/projects."""

    model_config = example(id="support")

    id: Name = Field(description="Its name, for good: never reused.")


class ProjectOut(BaseModel):
    """A tenant."""

    model_config = example(
        id="support",
        created_at="2026-11-27T09:00:00Z",
        limits={
            "requests_per_minute": 600,
            "tokens_per_day": None,
            "gpu_seconds_per_day": None,
            "stored_bytes": None,
        },
    )

    id: str = Field(description="Its name.")
    created_at: dt.datetime = Field(description="When it was made.")
    limits: Limits = Field(description="What it may use.")


class ProjectChange(Contract):
    """PATCH /v1/projects/{id}."""

    model_config = example(limits={"requests_per_minute": 600, "tokens_per_day": None})

    limits: Limits = Field(description="Limits that are named change, null ends one; others stay.")


class KeyIn(Contract):
    """POST /v1/keys."""

    model_config = example(name="ci", scopes=["judge", "read"], expires_in_days=90)

    name: str = Field(
        pattern=r"^[^\x00-\x1f\x7f]{1,100}$", description="Who holds it; stands in records."
    )
    scopes: list[Scope] = Field(
        min_length=1, max_length=8, description="What it may do; none implies another."
    )
    expires_in_days: float | None = Field(
        None, gt=0, le=3650, description="Then it is good no longer; default: never."
    )


class KeyRotation(Contract):
    """POST /v1/keys/{id}/rotate."""

    model_config = example(grace_seconds=3600)

    grace_seconds: int = Field(
        3600, ge=0, le=2_592_000, description="So long the present secret is good, too."
    )


class KeyOut(BaseModel):
    """A key, without its secret."""

    model_config = example(**_KEY)

    id: str = Field(description="What it is rotated and revoked by.")
    name: str = Field(description="Who holds it.")
    prefix: str = Field(description="Its secret's first characters.")
    scopes: list[Scope] = Field(description="What it may do.")
    created_at: dt.datetime = Field(description="When it was made.")
    expires_at: dt.datetime | None = Field(description="When it stops being good.")
    revoked_at: dt.datetime | None = Field(description="When it was revoked.")
    last_used_at: dt.datetime | None = Field(description="When it was last sent, to a minute.")


class KeyMade(KeyOut):
    """A key, with its secret: the only answer that has it."""

    # An example, and nobody's: B106 cannot know.
    model_config = example(**_KEY, secret="st_8fQz1bT4mXn0c2VwJk9rLh6yUeSdGa3pBiFoZq7xMtE")  # nosec B106

    secret: str = Field(description="Send it as `Authorization: Bearer`; it is not kept here.")


class CallerKey(BaseModel):
    """The key that a caller sent."""

    id: str = Field(description="As in the list of keys.")
    name: str = Field(description="What it was called when it was made.")


class CallerOut(BaseModel):
    """Who calls, and what this caller may do here."""

    model_config = example(
        project="support",
        key={"id": _KEY["id"], "name": _KEY["name"]},
        scopes=["judge", "read"],
        operator=False,
        version="0.1.0",
    )

    project: str = Field(description="The project whose things the caller sees.")
    key: CallerKey | None = Field(description="The key; none of an open gateway's caller without.")
    scopes: list[Scope] = Field(description="What the caller may do.")
    operator: bool = Field(description="Whether the operator's own routes answer, too.")
    version: str = Field(description="Of this gateway.")
