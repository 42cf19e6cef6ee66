"""Webhooks and deliveries in the database, and one round of the deliverer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sqlalchemy import select, text, update

from selftaught import webhooks
from selftaught.database import transaction
from selftaught.database.tables import Project, Webhook, WebhookDelivery
from selftaught.work import webhooks as deliverer

DEFAULT = "default"


def add_project(name: str) -> None:
    with transaction() as session:
        session.add(Project(id=name))


def add(url: str = "https://example.com/", *events: str, project: str = DEFAULT) -> Webhook:
    with transaction() as session:
        return webhooks.add(session, project, url, events or ("*",), None)


def tell(type_: str = "job.created", project: str = DEFAULT, times: int = 1, **data: Any) -> None:
    with transaction() as session:
        for _ in range(times):
            webhooks.tell(session, project, type_, data)


def webhook(webhook_id: str) -> Webhook:
    with transaction() as session:
        return session.get_one(Webhook, webhook_id)


def change(webhook_id: str, **values: Any) -> None:
    with transaction() as session:
        session.execute(update(Webhook).where(Webhook.id == webhook_id).values(values))


def deliveries(webhook_id: str | None = None) -> list[WebhookDelivery]:
    """All, or a webhook's, oldest first."""
    query = select(WebhookDelivery).order_by(WebhookDelivery.id)
    if webhook_id is not None:
        query = query.where(WebhookDelivery.webhook_id == webhook_id)
    with transaction() as session:
        return list(session.scalars(query))


def told(webhook_id: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of each."""
    return [(one.type, json.loads(one.payload)["data"]) for one in deliveries(webhook_id)]


def make_due() -> None:
    """Let the time that deliveries and leases wait for have come."""
    with transaction() as session:
        session.execute(text("UPDATE webhook_deliveries SET next_at = now() - interval '1 second'"))


def deliver_all() -> None:
    """One round: lease what is due, send it, write down what came of it."""

    async def round_() -> None:
        await asyncio.gather(*map(deliverer.deliver, deliverer.claim(100)))

    asyncio.run(round_())
