"""Calls of /judge go on while versions are swapped and an evaluator dies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import islice
from pathlib import Path

from benchmarks import swap
from benchmarks.judge_latency import ROOT, questions
from selftaught.client import Client
from selftaught.stack.state import free_port


def test_a_swap_and_a_dead_evaluator_fail_no_call(tmp_path: Path) -> None:
    port = free_port(lambda port: False)
    engine = subprocess.Popen([sys.executable, "-m", "benchmarks.standin", str(port)], cwd=ROOT)
    try:
        with swap.open_stack(tmp_path, port) as stack, Client(stack.gateway_url) as client:
            swap.prepare(client)
            for question in islice(questions(), 6):
                client.call("POST", "/judge", json={**question, "model": "judge:0"})
            found = asyncio.run(swap.run(stack, client, 8.0, kill=True))
            assert stack.restarts("evaluator2") == 1
    finally:
        engine.terminate()
        engine.wait()
    assert len(found.calls) == 80
    assert not found.failed and not found.wrong
    assert {call.model for call in found.calls} == {"judge:0", "judge:1"}
