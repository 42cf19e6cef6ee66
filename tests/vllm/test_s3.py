"""An engine node with a home of its own, which shares a bucket with the rest, and not a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.s3 import S3
from tests.vllm.conftest import ROOT, SMALL, VLLM, events, rows, upload

pytestmark = pytest.mark.vllm


def test_adapters_come_to_a_node_through_the_bucket(tmp_path: Path) -> None:
    assert VLLM.exists(), "no vLLM environment: run `make test-vllm`, which builds it"
    s3 = S3()
    env = {**s3.env, "SELFTAUGHT_ARTIFACTS_URL": f"s3://{s3.new_bucket()}"}
    home = tmp_path / "engines"
    with Stack(tmp_path / "first", generator_workers=1, env=env) as stack:
        own = {
            **os.environ,
            **env,
            "DATABASE_URL": stack.database_url,
            "REDIS_URL": stack.redis_url,
            "SELFTAUGHT_HOME": str(home),
            "SELFTAUGHT_NODE": "engines",
            "SELFTAUGHT_DEVICES": "cpu",
            "SELFTAUGHT_VLLM_PYTHON": str(VLLM),
        }
        node = subprocess.Popen([sys.executable, "-m", "services.engine.main"], env=own, cwd=ROOT)
        try:
            with Client(stack.gateway_url) as client:
                job = client.jobs.create(
                    upload(stack, tmp_path), recipe="quickstart", overrides=SMALL, model="judge"
                ).wait(900)
                answer = client.judge("Repeat this: a b c", "a b c", "c b a", model="judge:1")
                assert answer.model == "judge:1"
                (loaded,) = events(job, "adapter.loaded")
                ((version,),) = rows(stack, "SELECT id FROM model_versions WHERE number = 1")
                assert loaded.data["version"] == version and loaded.data["node"] == "engines"
                there = {folder.name for folder in (home / "versions").iterdir()}
                assert version in there and len(there) == 2, "it, and the probe"
        finally:
            node.terminate()
            node.wait(60)
            s3.stop()
