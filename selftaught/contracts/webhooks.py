"""Webhooks: who is told of which events, and what came of it."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from selftaught.contracts.base import Contract, example

WebhookEvent = Literal[
    "job.created",
    "job.cancelling",
    "job.cancelled",
    "job.pausing",
    "job.paused",
    "job.resumed",
    "job.retried",
    "job.failed",
    "job.paused",
    "job.pausing",
    "job.resumed",
    "job.retried",
    "job.succeeded",
    "iteration.succeeded",
    "version.published",
    "promotion.decided",
    "alias.moved",
    "alias.rolled_back",
    "canary.started",
    "canary.ended",
    "reviews.alarm",
    "webhook.disabled",
    "webhook.test",
]
"""Everything that a webhook can be told of (docs/webhooks.md)."""

TYPES: frozenset[str] = frozenset(get_args(WebhookEvent))
GROUPS = frozenset(f"{name.partition('.')[0]}.*" for name in TYPES)


def _known(events: list[str]) -> list[str]:
    """The events without doubles; ValueError for one that there is not."""
    for one in events:
        if one != "*" and one not in TYPES | GROUPS:
            known = ", ".join(["*", *sorted(TYPES | GROUPS)])
            raise ValueError(f"there is no event {one[:100]!r}; known: {known}")
    return sorted(set(events))


Events = Annotated[
    list[str],
    Field(
        min_length=1,
        max_length=50,
        description="Types (`job.failed`), groups (`job.*`), or `*` for all.",
    ),
    AfterValidator(_known),
]
_URL = Field(
    max_length=2048,
    description="https, to a name of the public internet; the operator may allow networks inside.",
)
_DESCRIPTION = Field(None, max_length=200, description="For people.")


class WebhookIn(Contract):
    """POST /v1/webhooks."""

    model_config = example(
        url="https://ci.example.com/hooks/selftaught",
        events=["job.succeeded", "job.failed", "version.*"],
        description="start the nightly comparison",
    )

    url: str = _URL
    events: Events = Field(default_factory=lambda: ["*"])
    description: str | None = _DESCRIPTION


class WebhookChange(Contract):
    """PATCH /v1/webhooks/{webhook_id}: what is not given stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"state": "enabled"}, {"events": ["job.*"]}]}
    )

    url: str | None = Field(None, max_length=2048, description="A new address.")
    events: Events | None = Field(None, description="Other events.")
    description: str | None = _DESCRIPTION
    state: Literal["enabled", "disabled"] | None = Field(
        None,
        description="disabled: no event is noted for it, and what waits for it goes on waiting.",
    )


_SHOWN: dict[str, Any] = {
    "id": "whk_019ac5a2e0b14f6d1a2b3c4d",
    "url": "https://ci.example.com/hooks/selftaught",
    "events": ["job.failed", "job.succeeded", "version.*"],
    "description": "start the nightly comparison",
    "state": "enabled",
    "disabled_reason": None,
    "failing_since": None,
    "created_at": "2026-11-27T09:00:00Z",
}


class WebhookOut(BaseModel):
    """A webhook, without its secret."""

    model_config = example(**_SHOWN)

    id: str = Field(description="Of the webhook.")
    url: str = Field(description="Where events go.")
    events: list[str] = Field(description="Which events.")
    description: str | None = Field(description="For people.")
    state: Literal["enabled", "disabled"] = Field(description="disabled: nothing is sent.")
    disabled_reason: str | None = Field(
        description="asked (by PATCH), gone (it answered 410) or failing (for five days)."
    )
    failing_since: dt.datetime | None = Field(
        description="First failure since the last delivery that was accepted."
    )
    created_at: dt.datetime = Field(description="When it was made.")


class WebhookSecretOut(WebhookOut):
    """A webhook and its new secret, which is shown this once."""

    # An example, and nobody's: B106 cannot know.
    model_config = example(**_SHOWN, secret="whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")  # nosec B106

    secret: str = Field(description="What deliveries are signed with.")


class WebhookDeliveryOut(BaseModel):
    """One event for one webhook, and what came of it."""

    model_config = example(
        id="msg_019ac5a83a47c2f91c2e3475",
        type="job.succeeded",
        payload={
            "type": "job.succeeded",
            "timestamp": "2026-11-27T09:04:10.344522Z",
            "data": {
                "job": "job_019ac5a1c3d08f2a5b7c9d0e",
                "kind": "loop",
                "model": "tour",
                "seq": 42,
            },
        },
        state="pending",
        attempts=1,
        next_at="2026-11-27T09:04:15Z",
        status=503,
        error=None,
        response="try later",
        created_at="2026-11-27T09:04:10Z",
        finished_at=None,
    )

    id: str = Field(description="Also the webhook-id header of every attempt.")
    type: str = Field(description="Of the event.")
    payload: dict[str, Any] = Field(description="What is sent.")
    state: Literal["pending", "delivered", "failed"] = Field(
        description="failed: it was tried as often as it is tried, or the webhook is gone."
    )
    attempts: int = Field(description="Since it was made, or asked for again.")
    next_at: dt.datetime | None = Field(description="Next attempt; null: none follows.")
    status: int | None = Field(description="HTTP status of the last attempt; null: no answer.")
    error: str | None = Field(description="Why there was no answer.")
    response: str | None = Field(description="The first kilobyte of the last answer.")
    created_at: dt.datetime = Field(description="When the event happened.")
    finished_at: dt.datetime | None = Field(description="When it was accepted or given up.")
