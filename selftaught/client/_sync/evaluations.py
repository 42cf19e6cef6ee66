# Made from ../_async by scripts/unasync.py (make unasync): change that one.
"""Evaluations: versions on benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selftaught.client._sync.transport import Transport
from selftaught.client._sync.work import Work
from selftaught.client.answers import given, url
from selftaught.contracts import ComparisonOut, EvaluationOut, JobOut, Scoring

_PATH = "/v1/evaluations"


class Evaluation(EvaluationOut, Work):
    """An evaluation: its fields, as of when it was last asked for; at its end the scores."""

    def _path(self) -> str:
        return url("v1", "evaluations", self.id)

    def cancel(self) -> Evaluation:
        """Stop it."""
        self._transport.post(JobOut, url("v1", "jobs", self.id, "cancel"))
        return self.refresh()

    def compare(self, other: str) -> ComparisonOut:
        """With another one on the same examples: is that other one's version better than this?"""
        return self._transport.get(ComparisonOut, f"{self._path()}/compare/{other}")


class Evaluations:
    """`client.evaluations`"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
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
    ) -> Evaluation:
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
        return self._transport.post(Evaluation, _PATH, body)

    def get(self, evaluation_id: str) -> Evaluation:
        """An evaluation by its id."""
        return self._transport.get(Evaluation, url("v1", "evaluations", evaluation_id))

    def list(
        self, *, model: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Iterator[Evaluation]:
        """Evaluations, newest first; of one model, behind `after`, at most `limit` of them."""
        return self._transport.pages(
            Evaluation, _PATH, after=after, limit=limit, params={"model": model}
        )
