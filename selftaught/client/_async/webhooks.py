"""Webhooks: who is told of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

from selftaught.client._async.transport import AsyncTransport
from selftaught.client.answers import given, url
from selftaught.contracts import WebhookDeliveryOut, WebhookOut, WebhookSecretOut


class AsyncWebhooks:
    """`client.webhooks`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self, address: str, *, events: Sequence[str] | None = None, description: str | None = None
    ) -> WebhookSecretOut:
        """Have events sent to an address; this answer alone has the secret they are signed with.

        `events`: types (`job.failed`), groups (`job.*`) or `*`, which is the default.
        """
        body = given(url=address, events=_list(events), description=description)
        return await self._transport.post(WebhookSecretOut, "/v1/webhooks", body)

    async def get(self, webhook_id: str) -> WebhookOut:
        """A webhook, without its secret."""
        return await self._transport.get(WebhookOut, url("v1", "webhooks", webhook_id))

    def list(
        self, *, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[WebhookOut]:
        """All of the project."""
        return self._transport.pages(WebhookOut, "/v1/webhooks", after=after, limit=limit)

    async def update(
        self,
        webhook_id: str,
        *,
        address: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        state: Literal["enabled", "disabled"] | None = None,
    ) -> WebhookOut:
        """Change what is given; the rest stays."""
        body = given(url=address, events=_list(events), description=description, state=state)
        answer = await self._transport.call("PATCH", url("v1", "webhooks", webhook_id), json=body)
        return self._transport.read(WebhookOut, answer)

    async def delete(self, webhook_id: str) -> WebhookOut:
        """Nothing is sent to it any more."""
        answer = await self._transport.call("DELETE", url("v1", "webhooks", webhook_id))
        return self._transport.read(WebhookOut, answer)

    async def rotate_secret(self, webhook_id: str) -> WebhookSecretOut:
        """A new secret; the one before signs, too, for 24 hours."""
        path = url("v1", "webhooks", webhook_id, "rotate-secret")
        return await self._transport.post(WebhookSecretOut, path)

    async def test(self, webhook_id: str) -> WebhookDeliveryOut:
        """Have an event `webhook.test` sent."""
        return await self._transport.post(
            WebhookDeliveryOut, url("v1", "webhooks", webhook_id, "test")
        )

    def deliveries(
        self,
        webhook_id: str,
        *,
        state: Literal["pending", "delivered", "failed"] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[WebhookDeliveryOut]:
        """What was sent, newest first."""
        path = url("v1", "webhooks", webhook_id, "deliveries")
        return self._transport.pages(
            WebhookDeliveryOut, path, after=after, limit=limit, params={"state": state}
        )

    async def redeliver(self, webhook_id: str, delivery_id: str) -> WebhookDeliveryOut:
        """Send a delivery again, now."""
        path = url("v1", "webhooks", webhook_id, "deliveries", delivery_id, "redeliver")
        return await self._transport.post(WebhookDeliveryOut, path)


def _list(events: Sequence[str] | None) -> list[str] | None:
    return None if events is None else list(events)
