"""Sampling: the distribution it should have, and random numbers that belong to their row."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from selftaught.inference.protocol import Sampling
from selftaught.inference.sampling import pick, uniforms

ROWS = 40_000


def wanted(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution by the book: filter by filter, over a full sort."""
    share = (logits.double() / sampling.temperature).softmax(-1)
    order = share.argsort(descending=True)
    if sampling.top_k:
        share[order[sampling.top_k :]] = 0
        share /= share.sum()
    before = share[order].cumsum(-1) - share[order]
    share[order[before >= sampling.top_p]] = 0
    return share / share.sum()


@pytest.mark.parametrize("spread", [0.3, 3.0])  # flat: beyond the first 16 tokens; and peaked
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_p=0.9),
        Sampling(temperature=1.5, top_p=0.5),
        Sampling(temperature=1.0, top_k=5),
        Sampling(temperature=1.0, top_k=30, top_p=0.8),
        Sampling(temperature=0.7, top_k=5, top_p=0.8),
    ],
)
def test_frequencies_match_the_softmax(sampling: Sampling, spread: float) -> None:
    torch.manual_seed(3)
    logits = torch.randn(60) * spread
    seeds, samples = np.arange(ROWS, dtype=np.uint64), np.zeros(ROWS, dtype=np.uint64)
    uniform = torch.from_numpy(uniforms(seeds, samples, 4)).float()
    tokens = pick(logits.expand(ROWS, -1), sampling, uniform)
    found = torch.bincount(tokens, minlength=60).double()
    expected = wanted(logits, sampling) * ROWS
    assert not found[expected == 0].any()  # outside the nucleus: never
    some = expected > 5
    squares = ((found - expected)[some] ** 2 / expected[some]).sum()
    freedom = int(some.sum()) - 1
    assert squares < freedom + 5 * (2 * max(freedom, 1)) ** 0.5


def test_greedy_takes_the_best() -> None:
    logits = torch.randn(9, 50)
    assert pick(logits, Sampling(temperature=0), torch.zeros(9)).equal(logits.argmax(-1))


def test_the_ends_of_the_unit_interval_stay_inside_the_nucleus() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, -9.0]]).expand(2, -1)
    ends = torch.tensor([0.0, 1.0])
    assert pick(logits, Sampling(temperature=1, top_p=0.9), ends).tolist() == [1, 2]
    assert pick(logits, Sampling(temperature=1, top_k=1), ends).tolist() == [1, 1]


def test_uniforms_are_uniform_and_independent() -> None:
    seeds = np.repeat(np.arange(300, dtype=np.uint64), 30)
    samples = np.tile(np.arange(30, dtype=np.uint64), 300)
    steps = np.stack([uniforms(seeds, samples, step) for step in range(20)])
    assert steps.min() >= 0
    assert steps.max() < 1
    assert len(np.unique(steps)) == steps.size
    counts = np.histogram(steps, bins=100, range=(0, 1))[0]
    expected = steps.size / 100
    assert ((counts - expected) ** 2 / expected).sum() < 99 + 5 * (2 * 99) ** 0.5
    grid = steps.reshape(20, 300, 30)
    for one, other in (
        (grid[1:], grid[:-1]),
        (grid[:, 1:], grid[:, :-1]),
        (grid[:, :, 1:], grid[:, :, :-1]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015


def test_a_rows_number_depends_on_its_own_counters_only() -> None:
    seeds, samples = np.array([7, 8, 9], np.uint64), np.array([1, 0, 2], np.uint64)
    assert uniforms(seeds[1:2], samples[1:2], 5)[0] == uniforms(seeds, samples, 5)[1]


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, selftaught.inference, selftaught.judging; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
