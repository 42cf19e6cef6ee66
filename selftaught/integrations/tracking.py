"""Follow a job, and log it as a run of MLflow or Weights & Biases.

    python -m selftaught.integrations.tracking JOB --to mlflow

A run belongs to a job. Who tracks a job again goes on with its run, and logs what is not there yet:
a job may be tracked while it runs, after it has ended, or again after the tracker was killed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from selftaught import ApiError, Client
from selftaught.client import Job
from selftaught.contracts import IterationOut

TAG = "selftaught.job"
_LOGGED = "selftaught.iteration."
_LONGEST = 500
"""Characters of a parameter's value: MLflow's older servers take no more."""


class Sink(Protocol):
    """Where a job is logged."""

    def begin(self, job: Job) -> None:
        """Find the job's run, or begin one with its settings."""

    def has(self, iteration: int) -> bool:
        """Was this iteration logged before?"""

    def log(self, iteration: int, metrics: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """An iteration that has succeeded: numbers, and all that is known of it."""

    def end(self, job: Job) -> None:
        """The job has ended."""


def track(job: Job, sink: Sink) -> None:
    """Log a job's iterations as they end, until it has ended. Raises ApiError."""
    sink.begin(job)
    _log_all(job, sink)
    if not job.ended:
        for event in job.events():
            if event.type == "iteration.succeeded":
                _log_all(job, sink)
        job.refresh()
        _log_all(job, sink)
    sink.end(job)


def _log_all(job: Job, sink: Sink) -> None:
    for iteration in job.iterations():
        if iteration.state == "succeeded" and not sink.has(iteration.number):
            record = {
                "iteration": iteration.model_dump(mode="json"),
                "manifest": _manifest(job, iteration),
            }
            sink.log(iteration.number, metrics_of(iteration), record)


def _manifest(job: Job, iteration: IterationOut) -> dict[str, Any] | None:
    """Where its data came from; none of a job whose files were removed."""
    try:
        return job.manifest(iteration.number).model_dump(mode="json")
    except ApiError as error:
        if error.status != 410:
            raise
        return None


def metrics_of(iteration: IterationOut) -> dict[str, float]:
    """Every number that says how an iteration went, by names with slashes."""
    told = iteration.model_dump(
        mode="json", include={"counts", "metrics", "kept_share", "tokens", "seconds"}
    )
    found = dict(_numbers(told.pop("metrics"), ""))
    found |= dict(_numbers(told, ""))
    for stage in iteration.stages:
        found |= dict(
            _numbers({"seconds": stage.seconds, **stage.metrics}, f"stages/{stage.kind}/")
        )
    return found


def params_of(job: Job) -> dict[str, str]:
    """A job's settings, by names with dots."""
    about = {"model": job.model, "dataset": job.dataset, "labelled_dataset": job.labelled_dataset}
    return {name: value[:_LONGEST] for name, value in _leaves({**about, "recipe": job.recipe}, "")}


def _numbers(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from _numbers(one, f"{prefix}{name}/")
        elif isinstance(one, int | float):  # true and false are 1 and 0
            yield prefix + name, float(one)


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from _leaves(one, f"{prefix}{name}.")
        elif one is not None:
            yield prefix + name, one if isinstance(one, str) else json.dumps(one)


class MLflow:
    """MLflow's tracking server or store (default: as the environment says: MLFLOW_TRACKING_URI)."""

    def __init__(self, experiment: str = "selftaught", uri: str | None = None) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = (
            self._client.create_experiment(experiment) if found is None else found.experiment_id
        )
        self._run = ""

    def begin(self, job: Job) -> None:
        """See Sink."""
        known = self._client.search_runs(
            [self._experiment], f"tags.`{TAG}` = '{job.id}'", order_by=["attributes.start_time"]
        )
        if known:
            self._run = known[0].info.run_id
            return
        begun = job.started_at or job.created_at
        made = self._client.create_run(
            self._experiment,
            start_time=int(begun.timestamp() * 1000),
            run_name=f"{job.model} {job.id}",
            tags={TAG: job.id},
        )
        self._run = made.info.run_id
        for name, value in params_of(job).items():
            self._client.log_param(self._run, name, value)

    def has(self, iteration: int) -> bool:
        """See Sink."""
        return f"{_LOGGED}{iteration}" in self._client.get_run(self._run).data.tags

    def log(self, iteration: int, metrics: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """See Sink. Marked last: what a killed tracker logged of it is logged again, the same."""
        from mlflow.entities import Metric, RunTag

        at = _milliseconds(record["iteration"]["finished_at"])
        found = [Metric(name, value, at, iteration) for name, value in metrics.items()]
        self._client.log_batch(self._run, metrics=found)
        self._client.log_dict(self._run, record, f"iterations/{iteration}.json")
        version = str(record["iteration"]["model_version"])
        self._client.log_batch(self._run, tags=[RunTag(f"{_LOGGED}{iteration}", version)])

    def end(self, job: Job) -> None:
        """See Sink."""
        status = {"succeeded": "FINISHED", "failed": "FAILED"}.get(str(job.state), "KILLED")
        ended = None if job.finished_at is None else int(job.finished_at.timestamp() * 1000)
        self._client.set_terminated(self._run, status, ended)


class WandB:
    """Weights & Biases; `mode="offline"` writes a folder, which `wandb sync` sends."""

    def __init__(
        self, project: str = "selftaught", mode: str | None = None, **settings: Any
    ) -> None:
        self._settings = {"project": project, "mode": mode, **settings}
        self._run: Any = None

    def begin(self, job: Job) -> None:
        """See Sink. The run has the job's id, so there is one of it, wherever it is tracked."""
        import wandb

        self._run = wandb.init(
            id=job.id,
            name=f"{job.model} {job.id}",
            resume="allow",
            config={**job.recipe, "model": job.model, "dataset": job.dataset, TAG: job.id},
            **self._settings,
        )

    def has(self, iteration: int) -> bool:
        """See Sink. Steps come in order, and W&B knows the last one of a run that goes on."""
        return bool(iteration < self._run.step)

    def log(self, iteration: int, metrics: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """See Sink."""
        import wandb

        artifact = wandb.Artifact(f"{self._run.id}-iteration-{iteration}", "selftaught-iteration")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "iteration.json"
            path.write_text(json.dumps(record, indent=1))
            artifact.add_file(str(path))
            self._run.log_artifact(artifact)
        version = record["iteration"]["model_version"]
        self._run.log({**metrics, "iteration": iteration}, step=iteration, commit=True)
        self._run.summary[f"version/{iteration}"] = version

    def end(self, job: Job) -> None:
        """See Sink."""
        self._run.summary["state"] = str(job.state)
        self._run.finish(exit_code=0 if job.state == "succeeded" else 1)


def _milliseconds(moment: str) -> int:
    return int(dt.datetime.fromisoformat(moment).timestamp() * 1000)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Log a job as a run, until it has ended.")
    parser.add_argument("job", help="A job's id.")
    parser.add_argument("--to", choices=["mlflow", "wandb"], required=True)
    parser.add_argument("--project", default="selftaught", help="W&B project, MLflow experiment.")
    parser.add_argument("--url", help="Gateway; default: SELFTAUGHT_URL, else this machine's.")
    given = parser.parse_args()
    sink: Sink = MLflow(given.project) if given.to == "mlflow" else WandB(given.project)
    with Client(given.url) as client:
        track(client.jobs.get(given.job), sink)


if __name__ == "__main__":
    main()
