"""A base model's judgments reviewed by a person: through the stack's workers, and in a terminal."""

from __future__ import annotations

import subprocess
import sys

from selftaught.client import Client
from selftaught.stack.handle import Stack


def test_a_version_is_reviewed(stack: Stack, client: Client, datasets: dict[str, str]) -> None:
    client.models.register(
        "smallworld", name="reviewed", template="smallworld", max_tokens=64
    ).wait(120)
    job = client.reviews.fill("reviewed", 0, size=10, source=datasets["labelled"]).wait(120)
    assert (job.kind, job.state) == ("review", "succeeded"), job
    (iteration,) = job.iterations()
    assert iteration.counts["pairs"] == 12

    terminal = subprocess.run(
        [sys.executable, "-m", "selftaught.cli", "review", "reviewed:0", "--reviewer", "ada",
         "--home", str(stack.config.home)],
        input="a\nnonsense\nB\nt\ns\nq\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert terminal.returncode == 0, terminal.stdout + terminal.stderr
    assert terminal.stdout.count("reviewed:0 said ") == 3
    assert "reviewed:0: 3 reviewed, agreement " in terminal.stdout
    assert "10 left" in terminal.stdout and "6 left" in terminal.stdout

    left = 0
    while item := client.reviews.next("reviewed:0", "bob").item:
        left += 1
        told = client.reviews.answer(item.id, "bob", "A", comment="first")
        assert told.model == "reviewed:0" and told.against is None
    assert left == 6, "the skipped one, too, but not the one that ada still holds"
    held = client.reviews.next("reviewed:0", "ada")
    assert held.left == 1 and held.item is not None
    client.reviews.answer(held.item.id, "ada", "B")
    found = client.reviews.summary("reviewed", 0)
    assert (found.n, found.reviewers, found.skipped) == (10, 2, 1)
    assert found.source.pairs == 12.0
    assert client.reviews.drift("reviewed").state == "ok"
