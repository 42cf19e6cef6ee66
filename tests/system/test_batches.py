"""Batches on a running stack: a killed worker, a cancel, the command."""

from __future__ import annotations

import json
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from selftaught.client import ApiError, Batch, Client, JobFailed
from selftaught.contracts import RequestCounts
from selftaught.stack.handle import Stack
from tests.system.conftest import SEED
from tests.system.test_evaluate import selftaught


def pairs(count: int) -> list[dict[str, Any]]:
    rows = (SEED / "data" / "dev.jsonl").read_text().splitlines()
    return [
        {
            "custom_id": f"pair-{number}",
            "instruction": row["instruction"],
            "response_a": row["chosen"],
            "response_b": row["rejected"],
        }
        for number, row in enumerate(map(json.loads, islice(cycle(rows), count)), 1)
    ]


@pytest.fixture(scope="module")
def model(stack: Stack) -> str:
    with Client(stack.gateway_url) as client:
        client.models.register(
            "smallworld", name="batches", template="smallworld", max_tokens=64
        ).wait(300)
    return "batches:0"


def judged(batch: Batch, least: int) -> None:
    """Wait until so many pairs are judged."""
    deadline = time.monotonic() + 300
    while batch.refresh().request_counts.completed < least:
        assert not batch.ended and time.monotonic() < deadline, batch
        time.sleep(0.05)


def in_the_middle(stack: Stack, batch: Batch) -> None:
    """Wait until a chunk is at work, and not between two of them."""
    engine = create_engine(stack.database_url)
    at_work = text("SELECT count(*) FROM chunks WHERE job_id = :job AND state = 'running'")
    with engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        while not connection.scalar(at_work, {"job": batch.id}):
            assert not batch.refresh().ended
    engine.dispose()


def test_a_killed_worker_costs_no_line_and_doubles_none(
    stack: Stack, client: Client, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    asked = pairs(384)
    file.write_text("".join(json.dumps(one) + "\n" for one in asked))
    batch = client.batches.create(file, model=model)
    judged(batch, 128)
    before = stack.restarts("evaluator-worker")
    in_the_middle(stack, batch)
    stack.kill("evaluator-worker")
    results = list(batch.results())
    assert [one.line for one in results] == [*range(1, 385)]
    assert [one.custom_id for one in results] == [one["custom_id"] for one in asked]
    assert stack.restarts("evaluator-worker") == before + 1
    assert batch.wait().state == "completed" and sum(batch.verdicts.values()) == 384
    assert batch.request_counts == RequestCounts(total=384, completed=384, failed=0)
    assert list(batch.results(follow=False)) == results
    requeued = [one for one in batch.events() if one.type == "chunk.requeued"]
    assert len(requeued) == 1, "it was killed in the middle"
    for result, pair in zip(results[:3], asked, strict=False):
        del pair["custom_id"]
        assert result.result is not None
        assert client.judge(**pair, model=model).verdict == result.result.verdict


def test_cancel_keeps_what_is_finished(client: Client, model: str) -> None:
    batch = client.batches.create(iter(pairs(900)), model=model)
    judged(batch, 128)
    assert batch.cancel().state in ("cancelling", "cancelled")
    with pytest.raises(JobFailed, match="cancelled"):
        batch.wait(300)
    done = batch.request_counts.completed
    assert batch.state == "cancelled" and 128 <= done < 900
    assert [one.line for one in batch.results()] == [*range(1, done + 1)]
    with pytest.raises(ApiError, match="batch_finished"):
        batch.cancel()


def test_the_command(stack: Stack, model: str, tmp_path: Path) -> None:
    file, out = tmp_path / "pairs.jsonl", tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in pairs(5)))
    done = selftaught(stack, "batch", file, out, "--model", model, "--no-both-orders")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "total 5, completed 5, failed 0, A " in done.stdout
    results = [json.loads(row) for row in out.read_text().splitlines()]
    assert [len(one["result"]["orders"]) for one in results] == [1] * 5
    file.write_text("{}\n[]\n")
    done = selftaught(stack, "batch", file, out, "--model", model)
    assert done.returncode == 1 and "line 2: not a JSON object" in done.stderr
