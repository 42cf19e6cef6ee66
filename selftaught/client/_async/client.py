"""The client of a gateway: resources by name, and questions to the judge."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Self

from selftaught.client._async.access import AsyncKeys, AsyncProjects
from selftaught.client._async.batches import AsyncBatches
from selftaught.client._async.catalogue import AsyncRecipes, AsyncTemplates
from selftaught.client._async.datasets import AsyncDatasets
from selftaught.client._async.evaluations import AsyncEvaluations
from selftaught.client._async.jobs import AsyncJobs
from selftaught.client._async.judging import AsyncJudging, AsyncVerdicts
from selftaught.client._async.models import AsyncCanaries, AsyncModels
from selftaught.client._async.reviews import AsyncReviews
from selftaught.client._async.transport import AsyncTransport
from selftaught.client._async.webhooks import AsyncWebhooks
from selftaught.client.answers import Json, moment
from selftaught.contracts import AuditOut, CallerOut, EngineNodeOut, UsageOut

LOCAL = "http://127.0.0.1:8080"
"""Where `selftaught up` serves, if nothing else is said."""


class AsyncClient(AsyncJudging):
    """Calls to one gateway.

    `base_url`: default: the environment's SELFTAUGHT_URL, else http://127.0.0.1:8080.
    `key`: the API key to send; default: the environment's SELFTAUGHT_API_KEY, if any.
    `timeout`: seconds that a call waits for an answer. `retries`: how often a call is sent again
    that got no answer, or one that says to try later; what it makes is made once all the same.

    Calls raise ApiError where the gateway refuses, httpx.TransportError where it is not to be
    reached. Close it in the end, or use it in a `with`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        key: str | None = None,
        timeout: float = 300.0,
        retries: int = 3,
    ) -> None:
        base_url = base_url or os.environ.get("SELFTAUGHT_URL") or LOCAL
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, not {base_url!r}")
        self.base_url = base_url.rstrip("/")
        key = key or os.environ.get("SELFTAUGHT_API_KEY") or None
        self._transport = AsyncTransport(self.base_url, key, timeout, retries)
        self.datasets = AsyncDatasets(self._transport)
        self.jobs = AsyncJobs(self._transport)
        self.models = AsyncModels(self._transport)
        self.canaries = AsyncCanaries(self._transport)
        self.batches = AsyncBatches(self._transport)
        self.verdicts = AsyncVerdicts(self._transport)
        self.evaluations = AsyncEvaluations(self._transport)
        self.reviews = AsyncReviews(self._transport)
        self.recipes = AsyncRecipes(self._transport)
        self.templates = AsyncTemplates(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.projects = AsyncProjects(self._transport)
        self.webhooks = AsyncWebhooks(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._transport.http.aclose()

    async def caller(self) -> CallerOut:
        """Whose key this is, what it may do, and the gateway's version."""
        return await self._transport.get(CallerOut, "/v1/caller")

    async def usage(self) -> UsageOut:
        """What the key's project has used, and how much it may use."""
        return await self._transport.get(UsageOut, "/v1/usage")

    def audit(
        self,
        *,
        key: str | None = None,
        method: str | None = None,
        route: str | None = None,
        request_id: str | None = None,
        since: dt.datetime | str | None = None,
        until: dt.datetime | str | None = None,
        project: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AuditOut]:
        """Who did what, newest first; what fits all that is given. `project`: the operator's."""
        return self._transport.pages(
            AuditOut,
            "/v1/audit",
            after=after,
            limit=limit,
            params={
                "key": key,
                "method": method,
                "route": route,
                "request_id": request_id,
                "since": moment(since),
                "until": moment(until),
                "project": project,
            },
        )

    def engines(self) -> AsyncIterator[EngineNodeOut]:
        """The operator's: machines that run engines, with their devices and servers."""
        return self._transport.pages(EngineNodeOut, "/v1/engines", "node")

    async def call(self, method: str, path: str, **options: Any) -> Json:
        """Any request, for what has no method here: the JSON object that is answered.

        `options`: params, json, headers, timeout.
        """
        return await self._transport.call(method, path, **options)

    def listen(self, method: str, path: str, **options: Any) -> AsyncGenerator[tuple[str, Json]]:
        """Any stream of events (name, data), for what has no method here. `options`: as of `call`.

        Raises ApiError, also for an event `error`.
        """
        return self._transport.listen(method, path, **options)
