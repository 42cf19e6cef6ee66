"""Adaptive sampling against N judgments of every input: kept examples, sampled tokens, accuracy.

    python -m benchmarks.adaptive [loop seeds, default 0 1 2]

All arms with the paper's filter and N = 15, side by side on one embedded stack with the shipped
seed; the adaptive ones ask in waves and stop an input at its first right judgment. In iteration 1
all arms judge the same pairs with the same model. Prints Markdown.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.frame import commit
from benchmarks.proof import FILTERS, ROOT, WORLD
from selftaught.client import Client
from selftaught.contracts import IterationOut
from selftaught.iterations import row_of
from selftaught.stack.handle import Stack

Json = dict[str, Any]
HOME = Path(os.environ.get("SELFTAUGHT_HOME", ROOT / ".selftaught" / "adaptive")).resolve()
ARMS: dict[str, Json] = {
    "fixed N=15": {"samples": 15, "need": "all"},
    "waves of 1": {"samples": 15, "need": "right", "wave": 1},
    "waves of 4": {"samples": 15, "need": "right", "wave": 4},
}


def main() -> None:
    """Run every arm for every loop seed and print what came out."""
    seeds = [int(seed) for seed in sys.argv[1:]] or [0, 1, 2]
    with Stack(HOME, port=0, trainer_workers=2) as stack, Client(stack.gateway_url) as client:
        instructions = client.datasets.upload(WORLD / "instructions.jsonl").id
        labelled = client.datasets.upload(WORLD / "test.jsonl", "labelled").id
        print(HEAD)
        for seed in seeds:
            jobs = {
                arm: client.jobs.create(
                    instructions,
                    labelled_dataset=labelled,
                    recipe="quickstart",
                    overrides={"seed": seed, "judge": judge, "curate": FILTERS["paper's filter"]},
                    model=arm.lower().replace(" ", "-").replace("=", ""),
                )
                for arm, judge in ARMS.items()
            }
            for job in jobs.values():
                job.wait(24 * 3600)
            found = {
                arm: [one for one in job.iterations() if one.number > 0]
                for arm, job in jobs.items()
            }
            for arm, iterations in found.items():
                print(line(arm, seed, iterations, found["fixed N=15"]), flush=True)
    print(
        f"\nMade by `python -m benchmarks.adaptive` at commit {commit()}, {os.cpu_count()} cores."
    )


HEAD = (
    "| arm | loop seed | iteration 1: kept inputs | tokens sampled | fewer by "
    "| all iterations: kept inputs | tokens sampled | fewer by "
    "| strict accuracy, 1 to last | 95 % interval of the last |\n" + "|---" * 10 + "|"
)


def sampled(iterations: list[IterationOut]) -> tuple[int, int]:
    """Inputs with a right judgment, and tokens that the judge wrote."""
    kept = written = 0
    for iteration in iterations:
        stages = {stage.kind: stage.counts for stage in iteration.stages}
        kept += stages["curate"]["inputs"] - stages["curate"].get("dropped_none_right", 0)
        written += stages["judge"]["tokens"]
    return kept, written


def line(arm: str, seed: int, iterations: list[IterationOut], fixed: list[IterationOut]) -> str:
    cells = [arm, str(seed)]
    for part, whole in ((iterations[:1], fixed[:1]), (iterations, fixed)):
        kept, written = sampled(part)
        cells += [f"{kept:,}", f"{written:,}", f"{sampled(whole)[1] / written:.2f}x"]
    rows = [row for one in iterations if (row := row_of(one.model_dump(mode="json")))]
    cells.append(" ".join(f"{row['strict_accuracy']:.4f}" for row in rows))
    cells.append("{:.4f} to {:.4f}".format(*rows[-1]["ci95"]))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
