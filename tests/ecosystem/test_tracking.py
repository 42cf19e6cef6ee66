"""A job as a run of MLflow and of Weights & Biases."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from selftaught.client import Job
from selftaught.integrations.tracking import MLflow, WandB, metrics_of, track


def test_a_job_is_one_run_of_mlflow(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MLflow.log

    def killed(self: MLflow, iteration: int, *rest: Any) -> None:
        log(self, iteration, *rest)
        if iteration == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(MLflow, "log", killed)
    with pytest.raises(KeyboardInterrupt):
        track(job, MLflow("twice"))
    monkeypatch.undo()
    for _ in range(2):
        track(job, MLflow("twice"))
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("twice").experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["selftaught.job"] == job.id
    assert run.data.params["recipe.train.method"] == "lora" and run.data.params["model"] == "tour"
    last = list(job.iterations())[-1]
    for name, value in metrics_of(last).items():
        assert run.data.metrics[name] == pytest.approx(value), name
    assert "heldout/strict_accuracy" in run.data.metrics
    history = client.get_metric_history(run.info.run_id, "heldout/strict_accuracy")
    assert [one.step for one in history] == [0, 1]
    files = [one.path for one in client.list_artifacts(run.info.run_id, "iterations")]
    assert files == ["iterations/0.json", "iterations/1.json"]
    record = json.loads(Path(client.download_artifacts(run.info.run_id, files[1])).read_text())
    assert record["manifest"]["version"] == "tour:1"
    assert run.data.tags["selftaught.iteration.1"] == "tour:1"


def test_a_job_is_a_run_of_wandb(job: Job) -> None:
    track(job, WandB("test"))
    (folder,) = Path(os.environ["WANDB_DIR"]).glob("wandb/offline-run-*")
    assert folder.name.endswith(job.id)
    (written,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 60
    while b"version/1" not in (text := written.read_bytes()):  # written behind the run's end
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert b"heldout/strict_accuracy" in text
