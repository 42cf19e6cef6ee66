"""Reviews: people look at a version's judgments, blind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from selftaught.client._async.jobs import AsyncJob
from selftaught.client._async.transport import AsyncTransport
from selftaught.client.answers import given, url
from selftaught.contracts import (
    ReviewAnswerOut,
    ReviewDrift,
    ReviewedOut,
    ReviewNextOut,
    ReviewSkippedOut,
    ReviewSummary,
)


class AsyncReviews:
    """`client.reviews`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def fill(self, model: str, number: int, **fields: Any) -> AsyncJob:
        """Sample pairs of a version for people to review: a job.

        `fields`: those of `ReviewQueueIn`: size, source, against, strata, votes, overlap, seed.
        """
        return await self._transport.post(AsyncJob, _path(model, number), fields)

    async def next(self, version: str, reviewer: str) -> ReviewNextOut:
        """The next item of a version (name:number) for this reviewer, and how many are left."""
        return await self._transport.get(
            ReviewNextOut, "/v1/reviews/next", {"version": version, "reviewer": reviewer}
        )

    async def answer(
        self,
        item: str,
        reviewer: str,
        verdict: Literal["A", "B", "tie"],
        comment: str | None = None,
    ) -> ReviewAnswerOut:
        """Which response is better, in the letters as shown; tells what the model said."""
        body = given(reviewer=reviewer, verdict=verdict, comment=comment)
        return await self._transport.post(
            ReviewAnswerOut, url("v1", "reviews", item, "answers"), body
        )

    async def skip(self, item: str, reviewer: str) -> ReviewSkippedOut:
        """Leave an item to others."""
        return await self._transport.post(
            ReviewSkippedOut, url("v1", "reviews", item, "skip"), {"reviewer": reviewer}
        )

    def list(
        self, model: str, number: int, *, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[ReviewedOut]:
        """A version's reviewed items with all answers and comments, newest first."""
        return self._transport.pages(ReviewedOut, _path(model, number), after=after, limit=limit)

    async def summary(self, model: str, number: int) -> ReviewSummary:
        """How well a version agrees with people."""
        return await self._transport.get(ReviewSummary, _path(model, number) + "/summary")

    async def drift(self, model: str) -> ReviewDrift:
        """Whether a model's agreement with people has fallen."""
        return await self._transport.get(
            ReviewDrift, url("v1", "models", model, "reviews", "drift")
        )


def _path(model: str, number: int) -> str:
    return url("v1", "models", model, "versions", number, "reviews")
