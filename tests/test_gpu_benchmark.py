"""The script for machines with a GPU runs its whole path on a tiny model here."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch


def run(*shapes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *shapes],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: run it in earnest")
def test_without_a_gpu_it_says_so() -> None:
    done = run("1b")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no CUDA GPU here: nothing was measured" in done.stderr


def test_the_path_on_a_tiny_model() -> None:
    done = run("tiny")
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"^\| tiny \| LoRA, (\w+) \| ([\d,]+) \| .* \| ([\d.]+) \| [\d.]+ \|$", done.stdout, re.M
    )
    assert [how for how, _, _ in rows] == ["none", "nf4"]
    assert all(int(speed.replace(",", "")) > 0 and float(peak) > 0 for _, speed, peak in rows)


def test_an_unknown_shape() -> None:
    done = run("70b")
    assert done.returncode == 1
    assert "unknown shape: 70b; known: tiny, 1b, 8b" in done.stderr
