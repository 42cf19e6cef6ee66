"""The quickstart job, cut to fit, and the stack that growth and overhead run it on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.frame import ROOT
from selftaught.client import Client, Job
from selftaught.registry import resolve_recipe
from selftaught.stack.handle import Stack

DATA = ROOT / "seeds" / "smallworld" / "data" / "instructions.jsonl"
SPARE = 0.25
"""Of the instructions: rows that selection may drop and there are enough left."""


@contextmanager
def opened() -> Iterator[tuple[Stack, Client]]:
    """A fresh stack with one worker of each kind, past its first start: each has done all it does.

    Imports and the first load of the model are behind it, as on a stack that is not just started.
    """
    with (
        tempfile.TemporaryDirectory() as home,
        Stack(home, generator_workers=1) as stack,
        Client(stack.gateway_url) as client,
    ):
        post(client, 16, "warm").wait(600)
        yield stack, client


def post(client: Client, instructions: int, model: str, chunk: int | None = None) -> Job:
    """One iteration of the shipped recipe with the shipped seed on so many instructions.

    Training steps and held-out instructions are cut in the same proportion, and so is the upload.
    """
    shipped = resolve_recipe("quickstart", {})
    share = instructions / shipped.pair.instructions
    heldout = max(8, round(share * shipped.validate_.instructions))
    assert shipped.train.steps is not None
    steps = max(4, round(share * shipped.train.steps))
    settings: dict[str, Any] = {
        "iterations": 1,
        "pair": {"instructions": instructions},
        "train": {"steps": steps, "warmup_steps": min(shipped.train.warmup_steps, steps // 4)},
        "validate": {"instructions": heldout},
    }
    if chunk is not None:
        settings["chunk_size"] = chunk
    with tempfile.TemporaryDirectory() as folder, DATA.open("rb") as source:
        file = Path(folder) / "instructions.jsonl"
        wanted = round((1 + SPARE) * (instructions + heldout))
        file.write_bytes(b"".join(islice(source, wanted)))
        dataset = client.datasets.upload(file).id
    return client.jobs.create(dataset, recipe="quickstart", overrides=settings, model=model)
