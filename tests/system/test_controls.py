"""`selftaught controls` against a running stack: stopped on the way, and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from selftaught.client import Client
from selftaught.recipes import merge
from selftaught.registry import load_recipe
from selftaught.stack.handle import Stack
from tests.system.conftest import SEED, TINY


def test_controls_go_on_where_they_were_stopped(
    stack: Stack, client: Client, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    raw = merge(load_recipe("quickstart"), {**TINY, "name": "mine"})
    recipe.write_text(yaml.safe_dump(raw))
    for name, rows in (("instructions", 100), ("dev", 12)):
        lines = (SEED / "data" / f"{name}.jsonl").read_text().splitlines(keepends=True)[:rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    home = Path(stack.config.home)
    command = [
        sys.executable, "-m", "selftaught.cli", "controls", tmp_path / "instructions.jsonl",
        "--labelled", tmp_path / "dev.jsonl", "--recipe", recipe, "--seeds", "3", "--home", home,
    ]  # fmt: skip

    def noted() -> dict[str, str]:
        ids: dict[str, str] = {}
        for record in (home / "controls").glob("*.json"):
            ids |= json.loads(record.read_text())
        return ids

    stopped = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while "loop/3" not in noted():
        assert time.monotonic() < deadline and stopped.poll() is None
        time.sleep(0.2)
    stopped.send_signal(signal.SIGKILL)
    stopped.wait()
    before = noted()

    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    after = noted()
    assert before.items() <= after.items()
    arms = ["loop", "one round", "no labels", "random labels", "own majority"]
    assert set(after) == {"instructions", "labelled", *(f"{arm}/3" for arm in arms)}
    for arm in arms:
        job = client.jobs.get(after[f"{arm}/3"])
        assert (job.state, job.recipe["seed"]) == ("succeeded", 3)
        assert job.iterations_done == (1 if arm == "one round" else 2)
        assert f"{arm}/3  iteration 1  strict" in done.stderr
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    assert [row[0] for row in cells] == ["arm", "---", *arms]
    assert [row[:2] for row in cells[2:]] == [[arm, "1"] for arm in arms]
    scores = client.jobs.get(after["own majority/3"]).iterations()
    assert cells[-1][2:5] == [f"{s.metrics['labelled']['strict_accuracy']:.4f}" for s in scores]
    assert subprocess.run(command, capture_output=True, text=True).stdout == done.stdout
    assert noted() == after
