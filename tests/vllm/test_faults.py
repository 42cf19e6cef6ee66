"""The engine is killed, hangs, starves, and cannot start."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file, save_file

from selftaught.client import JobFailed
from selftaught.contracts import LoraSettings
from selftaught.stack.handle import Stack
from services.engine import adapters
from services.trainer.base import write_probe_adapter
from tests.vllm.conftest import SEED, await_, events, judged_once, judging, rows

pytestmark = pytest.mark.vllm
DEVICES = "cpu0,cpu1"  # one for vLLM, one for training: the server stays


def server_pid(stack: Stack) -> int:
    ((pid,),) = rows(stack, "SELECT pid FROM engine_servers WHERE state = 'ready'")
    return int(pid)


def kill_api_server(stack: Stack) -> None:
    os.kill(server_pid(stack), signal.SIGKILL)


def kill_engine_core(stack: Stack) -> None:
    for child in psutil.Process(server_pid(stack)).children(recursive=True):
        if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
            child.kill()
            return
    raise AssertionError("no engine process")


def freeze_worker(stack: Stack) -> None:
    for child in psutil.Process(server_pid(stack)).children(recursive=True):
        child.suspend()


@pytest.mark.parametrize(
    ("disturb", "told"),
    [
        (kill_api_server, "engine.crashed"),
        (kill_engine_core, "engine.crashed"),
        (freeze_worker, "engine.hung"),
    ],
)
def test_judging_goes_on_when_the_engine_died(
    disturb: Any, told: str, stack: Stack, start_job: Any, tmp_path: Path
) -> None:
    job = start_job(pair={"instructions": 160})
    await_(lambda: judging(stack, job))
    disturb(stack)
    job.wait(900)
    happened = events(job, "engine.crashed", "engine.hung", "engine.restarted")
    assert [event.type for event in happened] == [told, "engine.restarted"]
    assert happened[0].data["log"]
    assert judged_once(job, 4, tmp_path) > 100


def test_an_adapter_that_does_not_serve_is_found_out(stack: Stack, tmp_path: Path) -> None:
    """Of too high a rank, without effect, or not there; by a server that is in use."""
    ((url,),) = rows(stack, "SELECT url FROM engine_servers WHERE state = 'ready'")
    probe = next((stack.home / "versions").glob("probe-*"))
    high = tmp_path / "high"
    write_probe_adapter(SEED, LoraSettings(rank=64), 0, high)
    same = tmp_path / "same"
    shutil.copytree(probe, same)
    weights = load_file(same / "adapter_model.safetensors")
    save_file(
        {name: tensor * 0 if "lora_B" in name else tensor for name, tensor in weights.items()},
        same / "adapter_model.safetensors",
    )
    base = url.removesuffix("/v1")
    assert adapters.load(base, "smallworld", "as-trained", probe) > 0
    for name, folder, why in (
        ("high", high, "rank 64"),
        ("same", same, "it changes nothing"),
        ("gone", tmp_path / "gone", "does not load"),
    ):
        with pytest.raises(adapters.AdapterFailed, match=why):
            adapters.load(base, "smallworld", name, folder)


def test_an_engine_that_cannot_start_fails_the_job_with_its_words(
    start_job: Any,
) -> None:
    job = start_job(engine={"max_model_len": 50_000})  # the model knows 1,024 positions
    with pytest.raises(JobFailed, match=r"(?s)failed: engine_start_failed: .*50000"):
        job.wait(600)
    types = [event.type for event in events(job, *ENGINE)]
    assert types == [
        "engine.starting",
        "engine.start_failed",
        "engine.restarted",
        "engine.start_failed",
        "engine.failed",
    ]


ENGINE = (
    "engine.starting",
    "engine.start_failed",
    "engine.out_of_memory",
    "engine.restarted",
    "engine.failed",
)


def test_too_little_memory_is_told_as_such(stack: Stack, start_job: Any) -> None:
    """A model whose context does not fit into the KV cache of 1 GiB."""
    long = stack.home / "models" / "long"
    shutil.copytree(SEED, long, ignore=shutil.ignore_patterns("data"))
    config = json.loads((long / "config.json").read_text())
    (long / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4_000_000}))
    job = start_job(base_model="long")
    with pytest.raises(JobFailed, match=r"(?s)failed: engine_out_of_memory: .*KV cache"):
        job.wait(600)


def test_a_server_larger_than_any_node_is_refused(start_job: Any) -> None:
    job = start_job(engine={"tensor_parallel": 8})
    with pytest.raises(JobFailed, match=r"(?s)failed: engine_too_large: .*8 devices"):
        job.wait(120)
