"""Where a training run stands, on disk: what a killed run needs to go on as if nothing had been.

One file, replaced by a rename, so that it is always whole. It holds the trained weights, the
optimizer, the random number generators and the account so far; the schedule and the position in the
data follow from the number of steps. Of several ranks each writes what it holds itself; rank 0's
file comes last, and what the others wrote counts only from then on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selftaught.artifacts import sync_folder
from services.trainer.ranks import ALONE, Ranks, as_part, own_part


@dataclass(frozen=True)
class State:
    """Saved as `file` every `every` steps (0: never) and after the last one. `run` says which run
    it is (settings, data, seed): the state of another one is not gone on from."""

    file: Path
    every: int
    run: str
    ranks: Ranks = ALONE

    def is_due(self, step: int, total: int) -> bool:
        return self.every > 0 and (step % self.every == 0 or step == total)

    def save(
        self,
        weights: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        account: dict[str, Any],
    ) -> None:
        """Replace what was saved before."""
        mine = self._part(self.ranks.number, account["steps"])
        temporary = mine.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)  # a process that was given up may still write to it
        kept = optimizer.state_dict()
        kept["state"] = {
            index: {name: own_part(value) for name, value in values.items()}
            for index, values in kept["state"].items()
        }
        with temporary.open("wb") as stream:
            torch.save(
                {
                    "run": self.run,
                    "weights": {n: own_part(weight.detach()) for n, weight in weights.items()},
                    "optimizer": kept,
                    "random": torch.get_rng_state(),
                    "random_cuda": torch.cuda.get_rng_state_all(),
                    "account": account,
                },
                stream,
            )
            stream.flush()
            os.fsync(stream.fileno())
        if not self.ranks.first:
            os.replace(temporary, mine)
            sync_folder(mine.parent)
        self.ranks.wait()
        if self.ranks.first:
            os.replace(temporary, mine)
            sync_folder(mine.parent)
        self.ranks.wait()
        for old in mine.parent.glob(f"state.{self.ranks.number}.*.pt"):
            if old != mine:
                old.unlink()

    def saved_step(self) -> int | None:
        """The step behind which this run goes on; None if it has saved nothing."""
        saved = self._load(self.file)
        if saved is None:
            return None
        step = int(saved["account"]["steps"])
        there = all(self._part(number, step).exists() for number in range(self.ranks.count))
        return step if there else None

    def _part(self, number: int, step: int) -> Path:
        """Where a rank keeps its own."""
        return self.file if number == 0 else self.file.with_name(f"state.{number}.{step}.pt")

    def restore(
        self, weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Put weights, optimizer and random numbers back; the account so far, or None if this run
        has saved nothing."""
        step = self.saved_step()
        saved = None if step is None else self._load(self._part(self.ranks.number, step))
        if saved is None:
            return None
        with torch.no_grad():
            for name, weight in weights.items():
                own_part(weight).copy_(saved["weights"][name])
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, values in saved["optimizer"]["state"].items():
            for name, value in values.items():
                values[name] = as_part(value, parameters[index])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        torch.cuda.set_rng_state_all(saved["random_cuda"])
        account: dict[str, Any] = saved["account"]
        return account

    def _load(self, file: Path) -> dict[str, Any] | None:
        if not file.exists():
            return None
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return saved if saved["run"] == self.run else None
