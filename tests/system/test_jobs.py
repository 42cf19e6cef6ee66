"""Whole jobs on the whole stack: what a user sees when all goes well, and when it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selftaught.client import ApiError, Client, JobFailed
from selftaught.iterations import row_of
from selftaught.stack.handle import Stack


def test_a_job_ends_with_a_served_judge(
    client: Client, tiny_job: Any, stack: Stack, tmp_path: Path
) -> None:
    job = tiny_job().wait(900)
    iterations = list(job.iterations())
    assert [entry.number for entry in iterations] == [0, 1, 2]
    for entry in iterations[1:]:
        row = row_of(entry.model_dump(mode="json"))
        assert row is not None
        assert row["judgments_sampled"] == 2 * 3 * row["pairs"]
        assert 0 < row["training_examples"] <= row["judgments_kept"] <= row["judgments_sampled"]
        assert entry.metrics["labelled"]["n"] == 12
        assert entry.tokens > 0 and entry.seconds > 0

    files = [job.download(1, "curate", tmp_path / form, form) for form in ("jsonl", "parquet")]
    examples = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert len(examples) == iterations[1].counts["training_examples"]
    assert pq.read_table(files[1]).to_pylist() == examples

    newest = next(client.models.versions(job.model))
    lineage = newest.lineage
    assert newest.parent is not None and newest.parent.endswith(":0")
    assert lineage["dataset"]["sha256"] and lineage["template"]["sha256"]
    assert lineage["recipe"] == job.recipe
    assert lineage["counts"]["2.curate"]["training_examples"] > 0
    assert lineage["base_model"]["license"] == "apache-2.0"
    assert lineage["human_labels_in_training"] is False

    pair = ("Repeat these letters: a b c", "a b c", "c b")
    answer = client.judge(*pair, model=newest.ref, explain=True)
    assert answer.model == newest.ref
    assert answer.verdict in ("A", "B", "tie", "unparsable")
    assert [order.order for order in answer.orders] == ["AB", "BA"]
    assert all(order.reasoning for order in answer.orders)

    folder = stack.home / "versions"
    weights = list(folder.glob("*/model.safetensors"))
    assert len(weights) >= 2 and not list(folder.glob(".*")), "no unfinished folder is left"


def test_pairs_made_once_serve_every_iteration(client: Client, tiny_job: Any) -> None:
    pair = {"instructions": 32, "fresh": False, "retries": 1, "near_equal": 0.95}
    select = {"near_duplicates": 0.95, "drop_pii": True}
    seed, first, second = tiny_job(pair=pair, select=select).wait(900).iterations()
    report = seed.metrics["select"]
    assert report["rows"] == 100 == report["kept"] + sum(report["dropped"].values())
    assert first.counts["pairs"] > 0
    assert "pair" not in {stage.kind for stage in second.stages}
    assert second.counts["judged_pairs"] == first.counts["judged_pairs"]
    assert second.counts["judgments_sampled"] == first.counts["judgments_sampled"]


def test_a_job_whose_model_cannot_load_says_so(client: Client, tiny_job: Any) -> None:
    job = tiny_job(base_model="broken")
    with pytest.raises(JobFailed, match=r"(?s)failed: model_load_failed: .*broken"):
        job.wait(900)
    assert job.state == "failed" and job.error.fault == "user"
    last = list(job.events())[-1]
    assert last.type == "job.failed" and last.data["code"] == "model_load_failed"


def test_an_unknown_model_is_refused_by_name(client: Client, tiny_job: Any) -> None:
    with pytest.raises(ApiError, match="no-such-model") as refused:
        tiny_job(base_model="no-such-model")
    assert refused.value.status == 422


def test_cancel_stops_a_job_and_keeps_its_versions(client: Client, tiny_job: Any) -> None:
    job = tiny_job(iterations=50)
    for event in job.events():
        if event.type == "iteration.succeeded":
            break
    with pytest.raises(JobFailed, match="cancelled"):
        job.cancel().wait(900)
    assert list(client.models.versions(job.model))
