"""Jobs: from a dataset to versions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal

from selftaught.client._async.transport import AsyncTransport
from selftaught.client._async.work import AsyncWork
from selftaught.client.answers import given, url
from selftaught.contracts import (
    DataOut,
    IterationOut,
    JobKind,
    JobOut,
    ManifestOut,
    Outcome,
    PairListed,
    PairOut,
)


class AsyncJob(JobOut, AsyncWork):
    """A job: its fields, as of when it was last asked for, and what can be done with it."""

    def _path(self) -> str:
        return url("v1", "jobs", self.id)

    async def cancel(self) -> AsyncJob:
        """Stop it. Versions that it has published stay."""
        return await self._act("cancel")

    async def pause(self) -> AsyncJob:
        """Workers let go of it within seconds; what is finished stays."""
        return await self._act("pause")

    async def resume(self) -> AsyncJob:
        """If it is paused, it goes on where it stands."""
        return await self._act("resume")

    async def retry(self) -> AsyncJob:
        """If it failed, it goes on from the stage that failed."""
        return await self._act("retry")

    async def delete(self) -> None:
        """With all it made but its versions, once it has ended."""
        await self._transport.call("DELETE", self._path())

    def iterations(self) -> AsyncIterator[IterationOut]:
        """Its iterations in order: 0 scores the seed, all others train."""
        return self._transport.pages(IterationOut, self._path() + "/iterations")

    def data(self) -> AsyncIterator[DataOut]:
        """All that its stages have published so far, by iteration and name."""
        return self._transport.pages(DataOut, self._path() + "/data")

    def pairs(
        self,
        iteration: int,
        *,
        outcome: Outcome | None = None,
        begins: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[PairListed]:
        """The pairs that an iteration judged, by id; with what became of their judgments."""
        path = f"{self._path()}/iterations/{iteration}/pairs"
        params = {"outcome": outcome, "begins": begins}
        return self._transport.pages(PairListed, path, after=after, limit=limit, params=params)

    async def pair(self, iteration: int, pair_id: str) -> PairOut:
        """One of them, with every judgment."""
        path = f"{self._path()}/iterations/{iteration}" + url("pairs", pair_id)
        return await self._transport.get(PairOut, path)

    async def manifest(self, iteration: int) -> ManifestOut:
        """Where the data of a finished iteration came from."""
        return await self._transport.get(ManifestOut, f"{self._path()}/data/{iteration}")

    async def download(
        self,
        iteration: int,
        name: str,
        path: str | Path,
        format: Literal["jsonl", "parquet"] = "jsonl",
    ) -> Path:
        """Rows of a stage (`curate`, `preferences`, `select_dropped`, ...), written to `path`.

        The file is there only once it is whole. Raises ApiError, OSError.
        """
        source = url("v1", "jobs", self.id, "data", iteration, name)
        return await self._transport.save(source, Path(path), params={"format": format})

    async def _act(self, what: str) -> AsyncJob:
        return self._become(await self._transport.post(AsyncJob, f"{self._path()}/{what}"))


class AsyncJobs:
    """`client.jobs`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        dataset: str,
        *,
        recipe: str | Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        model: str | None = None,
        labelled_dataset: str | None = None,
    ) -> AsyncJob:
        """Train a judge: a job that makes versions of `model` from a dataset of instructions.

        `recipe`: a name, or all settings; `overrides` are merged into it, key by key.
        `labelled_dataset`: every version is scored on it, none is trained on it.
        """
        body = given(
            dataset=dataset,
            recipe=recipe,
            overrides=overrides,
            model=model,
            labelled_dataset=labelled_dataset,
        )
        return await self._transport.post(AsyncJob, "/v1/jobs", body)

    async def get(self, job_id: str) -> AsyncJob:
        """A job by its id."""
        return await self._transport.get(AsyncJob, url("v1", "jobs", job_id))

    def list(
        self,
        *,
        state: str | None = None,
        kind: JobKind | None = None,
        dataset: str | None = None,
        model: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AsyncJob]:
        """Jobs, newest first; those behind `after`, and at most `limit` of them."""
        params = {"state": state, "kind": kind, "dataset": dataset, "model": model}
        return self._transport.pages(AsyncJob, "/v1/jobs", after=after, limit=limit, params=params)

    async def iteration(self, iteration_id: str) -> IterationOut:
        """One iteration, by its own id."""
        return await self._transport.get(IterationOut, url("v1", "iterations", iteration_id))
