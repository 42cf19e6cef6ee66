"""Where a training run stands, on disk: what a killed run needs to go on as if nothing had been.

One file, replaced by a rename, so that it is always whole. It holds the trained weights, the
optimizer, the random number generators and the account so far; the schedule and the position in the
data follow from the number of steps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selftaught.artifacts import sync_folder


@dataclass(frozen=True)
class State:
    """Saved as `file` every `every` steps (0: never) and after the last one. `run` says which run
    it is (settings, data, seed): the state of another one is not gone on from."""

    file: Path
    every: int
    run: str

    def is_due(self, step: int, total: int) -> bool:
        return self.every > 0 and (step % self.every == 0 or step == total)

    def save(
        self,
        weights: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        account: dict[str, Any],
    ) -> None:
        """Replace what was saved before."""
        temporary = self.file.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)  # a process that was given up may still write to it
        with temporary.open("wb") as stream:
            torch.save(
                {
                    "run": self.run,
                    "weights": {name: weight.detach() for name, weight in weights.items()},
                    "optimizer": optimizer.state_dict(),
                    "random": torch.get_rng_state(),
                    "random_cuda": torch.cuda.get_rng_state_all(),
                    "account": account,
                },
                stream,
            )
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.file)
        sync_folder(self.file.parent)

    def saved_step(self) -> int | None:
        """The step behind which this run goes on; None if it has saved nothing."""
        saved = self._load()
        return None if saved is None else int(saved["account"]["steps"])

    def restore(
        self, weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Put weights, optimizer and random numbers back; the account so far, or None if this run
        has saved nothing."""
        saved = self._load()
        if saved is None:
            return None
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(saved["weights"][name])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        torch.cuda.set_rng_state_all(saved["random_cuda"])
        account: dict[str, Any] = saved["account"]
        return account

    def _load(self) -> dict[str, Any] | None:
        if not self.file.exists():
            return None
        saved: dict[str, Any] = torch.load(
            self.file, map_location="cpu", weights_only=True, mmap=True
        )
        return saved if saved["run"] == self.run else None
