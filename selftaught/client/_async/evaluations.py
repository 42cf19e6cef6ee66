"""Evaluations: versions on benchmarks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from selftaught.client._async.transport import AsyncTransport
from selftaught.client._async.work import AsyncWork
from selftaught.client.answers import given, url
from selftaught.contracts import ComparisonOut, EvaluationOut, JobOut, Scoring

_PATH = "/v1/evaluations"


class AsyncEvaluation(EvaluationOut, AsyncWork):
    """An evaluation: its fields, as of when it was last asked for; at its end the scores."""

    def _path(self) -> str:
        return url("v1", "evaluations", self.id)

    async def cancel(self) -> AsyncEvaluation:
        """Stop it."""
        await self._transport.post(JobOut, url("v1", "jobs", self.id, "cancel"))
        return await self.refresh()

    async def compare(self, other: str) -> ComparisonOut:
        """With another one on the same examples: is that other one's version better than this?"""
        return await self._transport.get(ComparisonOut, f"{self._path()}/compare/{other}")


class AsyncEvaluations:
    """`client.evaluations`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        dataset: str,
        model: str,
        *,
        scoring: Sequence[Scoring] | None = None,
        template: str | None = None,
        votes: int | None = None,
        seed: int | None = None,
        limit: int | None = None,
        max_tokens: int | None = None,
    ) -> AsyncEvaluation:
        """Judge a benchmark or a labelled dataset with a version (name, name:alias, name:number).

        `scoring`: `strict`, `official`, or both, which is the default. `limit`: so many examples,
        drawn by the seed. `max_tokens`: of an answer.
        """
        body = given(
            dataset=dataset,
            model=model,
            scoring=None if scoring is None else list(scoring),
            template=template,
            votes=votes,
            seed=seed,
            limit=limit,
            max_tokens=max_tokens,
        )
        return await self._transport.post(AsyncEvaluation, _PATH, body)

    async def get(self, evaluation_id: str) -> AsyncEvaluation:
        """An evaluation by its id."""
        return await self._transport.get(AsyncEvaluation, url("v1", "evaluations", evaluation_id))

    def list(
        self, *, model: str | None = None, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[AsyncEvaluation]:
        """Evaluations, newest first; of one model, behind `after`, at most `limit` of them."""
        return self._transport.pages(
            AsyncEvaluation, _PATH, after=after, limit=limit, params={"model": model}
        )
