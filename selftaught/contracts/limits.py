"""What a project may use, and what it has used."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, example


class Limits(Contract):
    """A project's limits; null: none."""

    model_config = example(
        requests_per_minute=600,
        tokens_per_day=20_000_000,
        gpu_seconds_per_day=86_400,
        stored_bytes=107_374_182_400,
    )

    requests_per_minute: int | None = Field(
        None, ge=1, le=2**31, description="Requests of all its keys together, to any route."
    )
    tokens_per_day: int | None = Field(
        None, ge=0, le=2**53, description="Tokens that models read and write for it, in a UTC day."
    )
    gpu_seconds_per_day: int | None = Field(
        None, ge=0, le=2**53, description="Seconds of devices that its trainings hold."
    )
    stored_bytes: int | None = Field(
        None, ge=0, le=2**53, description="Bytes of its datasets, batches and results."
    )


class Spent(BaseModel):
    """One thing that is limited."""

    model_config = example(used=1200, limit=20_000_000, resets_at="2026-11-28T00:00:00Z")

    used: int | float = Field(description="So far.")
    limit: int | None = Field(description="Null: none.")
    resets_at: dt.datetime | None = Field(description="When it is 0 again; null: it only shrinks.")


class UsageOut(BaseModel):
    """What a project has used."""

    model_config = example(
        project="support",
        requests={"used": 41, "limit": 600, "resets_at": "2026-11-27T09:01:00Z"},
        tokens={"used": 1_250_000, "limit": 20_000_000, "resets_at": "2026-11-28T00:00:00Z"},
        gpu_seconds={"used": 5400.5, "limit": 86_400, "resets_at": "2026-11-28T00:00:00Z"},
        stored_bytes={"used": 734_003_200, "limit": 107_374_182_400, "resets_at": None},
    )

    project: str = Field(description="The caller's.")
    requests: Spent | None = Field(description="In this minute; null: not limited, not counted.")
    tokens: Spent = Field(description="In this UTC day: read and written by models.")
    gpu_seconds: Spent = Field(description="In this UTC day: of devices that trainings held.")
    stored_bytes: Spent = Field(description="Now: of files that have a row here.")
