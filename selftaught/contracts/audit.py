"""Who did what."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, Field

from selftaught.contracts.base import example


class AuditOut(BaseModel):
    """A request that changes something, or a command of the operator's; never what was sent."""

    model_config = example(
        id="aud_019ac5aa3c69e4b13e405697",
        at="2026-11-27T09:00:00Z",
        project="support",
        key_id="key_019ac5a6b1c2d3e4f5061728",
        key_name="ci",
        method="POST",
        route="/v1/jobs",
        path="/v1/jobs",
        target="/v1/jobs/job_019ac5a1c3d08f2a5b7c9d0e",
        status=201,
        request_id="req_019ac5a83a47c2f91c2e3475",
        client="10.0.0.7",
    )

    id: str = Field(description="Sorts by time.")
    at: dt.datetime = Field(description="Before it was done.")
    project: str = Field(description="Whose key it was.")
    key_id: str | None = Field(description="Null: without a key.")
    key_name: str | None = Field(description="As it was then.")
    method: str = Field(description="HTTP's; of a command: CLI.")
    route: str = Field(description="The route, or the command.")
    path: str = Field(description="With the ids that it names; without a query.")
    target: str | None = Field(description="What was made, if the answer has a Location.")
    status: int | None = Field(
        description="Of the answer; null: under way, or the gateway died before it answered."
    )
    request_id: str | None = Field(description="As in X-Request-ID and in the logs.")
    client: str | None = Field(description="Address of whoever sent it; of a command: user@host.")
