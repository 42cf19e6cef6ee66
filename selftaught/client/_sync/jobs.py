# Made from ../_async by scripts/unasync.py (make unasync): change that one.
"""Jobs: from a dataset to versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from selftaught.client._sync.transport import Transport
from selftaught.client._sync.work import Work
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


class Job(JobOut, Work):
    """A job: its fields, as of when it was last asked for, and what can be done with it."""

    def _path(self) -> str:
        return url("v1", "jobs", self.id)

    def cancel(self) -> Job:
        """Stop it. Versions that it has published stay."""
        return self._act("cancel")

    def pause(self) -> Job:
        """Workers let go of it within seconds; what is finished stays."""
        return self._act("pause")

    def resume(self) -> Job:
        """If it is paused, it goes on where it stands."""
        return self._act("resume")

    def retry(self) -> Job:
        """If it failed, it goes on from the stage that failed."""
        return self._act("retry")

    def delete(self) -> None:
        """With all it made but its versions, once it has ended."""
        self._transport.call("DELETE", self._path())

    def iterations(self) -> Iterator[IterationOut]:
        """Its iterations in order: 0 scores the seed, all others train."""
        return self._transport.pages(IterationOut, self._path() + "/iterations")

    def data(self) -> Iterator[DataOut]:
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
    ) -> Iterator[PairListed]:
        """The pairs that an iteration judged, by id; with what became of their judgments."""
        path = f"{self._path()}/iterations/{iteration}/pairs"
        params = {"outcome": outcome, "begins": begins}
        return self._transport.pages(PairListed, path, after=after, limit=limit, params=params)

    def pair(self, iteration: int, pair_id: str) -> PairOut:
        """One of them, with every judgment."""
        path = f"{self._path()}/iterations/{iteration}" + url("pairs", pair_id)
        return self._transport.get(PairOut, path)

    def manifest(self, iteration: int) -> ManifestOut:
        """Where the data of a finished iteration came from."""
        return self._transport.get(ManifestOut, f"{self._path()}/data/{iteration}")

    def download(
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
        return self._transport.save(source, Path(path), params={"format": format})

    def _act(self, what: str) -> Job:
        return self._become(self._transport.post(Job, f"{self._path()}/{what}"))


class Jobs:
    """`client.jobs`"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        dataset: str,
        *,
        recipe: str | Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        model: str | None = None,
        labelled_dataset: str | None = None,
    ) -> Job:
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
        return self._transport.post(Job, "/v1/jobs", body)

    def get(self, job_id: str) -> Job:
        """A job by its id."""
        return self._transport.get(Job, url("v1", "jobs", job_id))

    def list(
        self,
        *,
        state: str | None = None,
        kind: JobKind | None = None,
        dataset: str | None = None,
        model: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first; those behind `after`, and at most `limit` of them."""
        params = {"state": state, "kind": kind, "dataset": dataset, "model": model}
        return self._transport.pages(Job, "/v1/jobs", after=after, limit=limit, params=params)

    def iteration(self, iteration_id: str) -> IterationOut:
        """One iteration, by its own id."""
        return self._transport.get(IterationOut, url("v1", "iterations", iteration_id))
