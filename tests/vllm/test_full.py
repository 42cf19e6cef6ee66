"""A training of all weights on a managed vLLM: the new version gets a server of its own."""

from __future__ import annotations

from typing import Any

import pytest

from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.vllm.conftest import SMALL, events, rows

pytestmark = pytest.mark.vllm
DEVICES = "cpu"


def test_versions_take_turns_on_one_device(stack: Stack, client: Client, start_job: Any) -> None:
    train = {**SMALL["train"], "method": "full"}
    job = start_job(train=train).wait(900)
    told = [
        (event.type, event.data.get("reason"))
        for event in events(job, "engine.ready", "engine.stopped", "adapter.loaded")
    ]
    assert told == [
        ("engine.ready", None),
        ("engine.stopped", "a training needs its devices"),
        ("engine.ready", None),
    ]
    ((folder,),) = rows(stack, "SELECT path FROM model_versions WHERE number = 1")
    ((base,),) = rows(stack, "SELECT spec ->> 'base' FROM engine_servers")
    assert base == folder
    ref = f"{job.model}:1"
    answer = client.judge("Repeat this: a b", "a b", "b", model=ref, explain=True)
    assert answer.model == f"{job.model}:1"
    assert all(order.reasoning for order in answer.orders)
