"""`selftaught register` and `selftaught evaluate` against a running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.system.conftest import SEED


def selftaught(stack: Stack, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "selftaught.cli", *map(str, arguments)]
    return subprocess.run(
        [*command, "--home", str(stack.config.home)], capture_output=True, text=True, timeout=600
    )


def test_a_base_model_is_registered_evaluated_and_serves(
    stack: Stack, client: Client, tmp_path: Path
) -> None:
    asked = ("smallworld", "--name", "base", "--template", "smallworld", "--max-tokens", "64")
    registered = selftaught(stack, "register", *asked)
    assert registered.returncode == 0, registered.stdout + registered.stderr
    assert registered.stdout.strip() == "base:0"
    assert selftaught(stack, "register", *asked).stdout.strip() == "base:0", "the same version"

    rows = (SEED / "data" / "test.jsonl").read_text().splitlines(keepends=True)[:70]
    benchmark = tmp_path / "test.jsonl"
    benchmark.write_text("".join(rows))
    results = []
    for name in ("one.json", "two.json"):
        done = selftaught(
            stack, "evaluate", "--benchmark", benchmark, "--model", "base:0",
            "--scoring", "strict,official", "--report", tmp_path / name,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "pairs, strict: base:0" in done.stdout and "subset/length-4" in done.stdout
        results.append((tmp_path / name).read_text())
    assert results[0] == results[1]
    strict, official = json.loads(results[0])["scores"]
    assert (strict["scoring"], official["scoring"]) == ("strict", "official")
    overall = strict["figures"][0]
    assert overall["name"] == "overall" and 0 < overall["low"] < overall["value"] < overall["high"]

    first = next(client.evaluations.list(model="base:0"))
    other = client.evaluations.create(first.dataset, "base:0", template="verdict-only", limit=70)
    paired = first.compare(other.wait(600).id).paired[0]
    assert (paired.scoring, paired.n, paired.second) == ("strict", 70, 0.0), paired
    assert paired.difference == -overall["value"] and paired.p < 0.01
    assert [one.id for one in client.evaluations.list(model="base:0", limit=2)] == [
        other.id,
        first.id,
    ]
    assert first.examples_done == 70 and first.settings.template == "smallworld"
    verdict = client.judge("Replace t with w in this: c t", "c w", "c t", model="base")
    assert verdict.model == "base:0", "registering promotes the first version"


def test_evaluate_says_what_is_wrong(stack: Stack, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('[{"input": "i", "output_1": "a", "label": 1}]')
    done = selftaught(stack, "evaluate", "--benchmark", broken, "--model", "base:0")
    assert done.returncode == 1 and "row 1, output_2: missing" in done.stderr
    done = selftaught(
        stack, "evaluate", "--benchmark", SEED / "data" / "dev.jsonl", "--model", "nobody:0"
    )
    assert done.returncode == 1 and "nobody:0" in done.stderr
