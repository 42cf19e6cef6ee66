"""Webhooks: addresses of a project's that are told of its events, and what came of it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from selftaught import outgoing, webhooks
from selftaught.contracts import (
    Page,
    WebhookChange,
    WebhookDeliveryOut,
    WebhookIn,
    WebhookOut,
    WebhookSecretOut,
)
from selftaught.database import transaction
from selftaught.database.tables import Webhook, WebhookDelivery
from selftaught.http import Refused, problem_docs
from selftaught.settings import get_settings
from services.api import problems
from services.api.access import Caller
from services.api.deps import Cursor, Limit, StorableBody
from services.api.idempotency import Once, keep

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

WebhookId = Annotated[
    str, Path(description="A webhook's id.", examples=["whk_019ac5a2e0b14f6d1a2b3c4d"])
]
DeliveryId = Annotated[
    str, Path(description="A delivery's id.", examples=["msg_019ac5a83a47c2f91c2e3475"])
]


@router.post("", status_code=201, responses=problem_docs(409), dependencies=[StorableBody, Once])
def create_webhook(body: WebhookIn, caller: Caller, response: Response) -> WebhookSecretOut:
    """Have an address told of this project's events from now on.

    The answer has the secret that deliveries are signed with; it is not shown again. The address
    is resolved and checked anew at every delivery, not only now.
    """
    _check_url(body.url)
    try:
        with transaction() as session:
            made = webhooks.add(session, caller.project, body.url, body.events, body.description)
            location = response.headers["Location"] = f"/v1/webhooks/{made.id}"
            keep(session, _out(made), location, secret=True)
    except webhooks.TooManyWebhooks as error:
        raise Refused(409, "too_many_webhooks", str(error)) from error
    return _with_secret(made)


@router.get("", responses=problem_docs())
def list_webhooks(after: Cursor = None, limit: Limit = 20) -> Page[WebhookOut]:
    """Webhooks of this project, oldest first."""
    query = select(Webhook).order_by(Webhook.id).limit(limit + 1)
    if after is not None:
        query = query.where(Webhook.id > after)
    with transaction() as session:
        rows = session.scalars(query).all()
    return Page(data=[_out(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/{webhook_id}", responses=problem_docs(404))
def get_webhook(webhook_id: WebhookId) -> WebhookOut:
    """One webhook, without its secret."""
    with transaction() as session:
        return _out(_find(session, webhook_id))


@router.patch("/{webhook_id}", responses=problem_docs(404), dependencies=[StorableBody])
def change_webhook(webhook_id: WebhookId, body: WebhookChange) -> WebhookOut:
    """Change what is given; enabling it again lets what waits for it go on."""
    given = {name: getattr(body, name) for name in body.model_fields_set}
    for name in ("url", "events", "state"):
        if name in given and given[name] is None:
            raise Refused(422, "invalid_request", f"{name} cannot be null", param=name)
    if body.url is not None:
        _check_url(body.url)
    with transaction() as session:
        webhook = _find(session, webhook_id, change=True)
        for name, value in given.items():
            setattr(webhook, name, value)
        if body.state == "enabled":
            webhook.disabled_reason = webhook.failing_since = None
        elif body.state == "disabled":
            webhook.disabled_reason = webhook.disabled_reason or "asked"
        session.flush()
        return _out(webhook)


@router.delete("/{webhook_id}", responses=problem_docs(404))
def delete_webhook(webhook_id: WebhookId) -> WebhookOut:
    """Forget a webhook, its secret and all its deliveries. Nothing more is sent to it."""
    with transaction() as session:
        webhook = session.scalars(
            select(Webhook).where(Webhook.id == webhook_id).with_for_update()
        ).one_or_none()
        if webhook is None:
            raise problems.not_found("webhook", webhook_id)
        out = _out(webhook)
        session.delete(webhook)
    return out


@router.post("/{webhook_id}/rotate-secret", responses=problem_docs(404, 409), dependencies=[Once])
def rotate_webhook_secret(webhook_id: WebhookId) -> WebhookSecretOut:
    """Give a webhook a new secret, which this answer alone shows.

    For 24 hours deliveries carry two signatures, by the new secret and by the one before.
    """
    with transaction() as session:
        webhook = _find(session, webhook_id, change=True)
        webhooks.rotate(session, webhook)
        keep(session, _out(webhook), f"/v1/webhooks/{webhook_id}", secret=True)
        return _with_secret(webhook)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    responses=problem_docs(404, 409),
    dependencies=[Once],
)
def test_webhook(webhook_id: WebhookId) -> WebhookDeliveryOut:
    """Send a `webhook.test` event; what comes of it stands among the deliveries."""
    with transaction() as session:
        webhook = _need_enabled(_find(session, webhook_id, change=True))
        delivery = webhooks.test(session, webhook)
        session.refresh(delivery)
        out = _delivery(delivery)
        keep(session, out)
    return out


@router.get("/{webhook_id}/deliveries", responses=problem_docs(404))
def list_webhook_deliveries(
    webhook_id: WebhookId,
    after: Cursor = None,
    limit: Limit = 20,
    state: Annotated[
        Literal["pending", "delivered", "failed"] | None, Query(description="Only in this state.")
    ] = None,
) -> Page[WebhookDeliveryOut]:
    """Deliveries of a webhook, newest first; those of the last 30 days."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if after is not None:
        query = query.where(WebhookDelivery.id < after)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    with transaction() as session:
        _find(session, webhook_id)
        rows = session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit + 1)).all()
    return Page(data=[_delivery(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=problem_docs(404, 409),
    dependencies=[Once],
)
def redeliver_webhook(webhook_id: WebhookId, delivery_id: DeliveryId) -> WebhookDeliveryOut:
    """Send a delivery again, now: the same body under the same webhook-id.

    Attempts count anew. One that is being sent at this moment stays as it is.
    """
    with transaction() as session:
        _need_enabled(_find(session, webhook_id, change=True))
        delivery = session.scalars(
            select(WebhookDelivery)
            .where(WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook_id)
            .with_for_update()
        ).one_or_none()
        if delivery is None:
            raise problems.not_found("delivery", delivery_id)
        if delivery.lock_token is None:
            delivery.state, delivery.attempts, delivery.finished_at = "pending", 0, None
            delivery.next_at = func.clock_timestamp()
            session.flush()
            session.refresh(delivery)
        out = _delivery(delivery)
        keep(session, out)
    return out


def _find(session: Session, webhook_id: str, change: bool = False) -> Webhook:
    """The row, locked if it is to be changed; 404 if this project has none."""
    query = select(Webhook).where(Webhook.id == webhook_id)
    if change:
        query = query.with_for_update(key_share=True)
    webhook = session.scalars(query).one_or_none()
    if webhook is None:
        raise problems.not_found("webhook", webhook_id)
    return webhook


def _need_enabled(webhook: Webhook) -> Webhook:
    if webhook.state != "enabled":
        detail = f"the webhook is disabled ({webhook.disabled_reason}); enable it first"
        raise Refused(409, "webhook_disabled", detail)
    return webhook


def _check_url(url: str) -> None:
    try:
        outgoing.check(url, get_settings().webhook_networks)
    except outgoing.UrlRefused as error:
        raise Refused(422, "url_refused", str(error), param="url") from error


def _out(row: Webhook) -> WebhookOut:
    return WebhookOut.model_validate(row, from_attributes=True)


def _with_secret(row: Webhook) -> WebhookSecretOut:
    return WebhookSecretOut.model_validate(row, from_attributes=True)


def _delivery(row: WebhookDelivery) -> WebhookDeliveryOut:
    return WebhookDeliveryOut(
        id=row.id,
        type=row.type,
        payload=json.loads(row.payload),
        state=row.state,
        attempts=row.attempts,
        next_at=row.next_at if row.state == "pending" else None,
        status=row.status,
        error=row.error,
        response=row.response,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
