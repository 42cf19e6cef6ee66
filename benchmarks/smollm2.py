"""The recipe `smollm2` on real instructions, and every version on real benchmarks.

    make smollm2 && python -m benchmarks.smollm2 [examples per benchmark, default 100]

Reads instructions and benchmarks from SELFTAUGHT_SHARED (default: ../shared beside the checkout).
The instructions overlap with none of the benchmarks. Prints Markdown; goes on where an
earlier run in the same home was stopped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.frame import commit
from benchmarks.proof import ROOT
from selftaught.client import Client, Evaluation, Job
from selftaught.contracts import IterationOut
from selftaught.controls import known
from selftaught.stack.handle import Stack

HOME = Path(os.environ.get("SELFTAUGHT_HOME", ROOT / ".selftaught")).resolve()
RECORD = HOME / "smollm2.json"
DATA = Path(os.environ.get("SELFTAUGHT_SHARED", ROOT.parent / "shared")) / "data"
INSTRUCTIONS = ("dolly_part", "koala", "self_instruct_seed175", "self_instruct_user252", "vicuna80")
BENCHMARKS = ("llmbar", "mtbench_human200", "hhh_alignment")


def main() -> None:
    """Run the job, evaluate the seed and every iteration, print the table."""
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with Stack(HOME, port=0) as stack, Client(stack.gateway_url) as client:
        job = client.jobs.get(known(RECORD, "job", lambda: start(client))).wait()
        iterations = list(job.iterations())
        print(stages(iterations))
        print(HEAD)
        paired = [PAIRED]
        for name in ("constructed, held out", *BENCHMARKS):
            most = limit if name in BENCHMARKS else None
            found = []
            for one in iterations:
                found.append(evaluate(client, job, name, str(one.model_version), most))
                print(line(name, one.number, found[-1]), flush=True)
            paired += against(name, found[0], found[-1])
    print("\n".join(["", *paired]))
    print(f"\nMade by `python -m benchmarks.smollm2 {limit}` at commit {commit()}.")


def start(client: Client) -> str:
    path = HOME / "smollm2-instructions.jsonl"
    rows = [row for name in INSTRUCTIONS for row in (DATA / f"instructions/{name}.jsonl").open()]
    path.write_text("".join(rows))
    dataset = client.datasets.upload(path).id
    return client.jobs.create(dataset, recipe="smollm2", model="judge-smollm2").id


def evaluate(client: Client, job: Job, name: str, model: str, limit: int | None) -> Evaluation:
    """The evaluation of a version on a set, once it has succeeded."""

    def upload() -> str:
        path = DATA / "pairs" / f"{name}.jsonl"
        if name not in BENCHMARKS:
            path = job.download(0, "pair", HOME / "smollm2-heldout.jsonl")
        return client.datasets.upload(path, "benchmark", benchmark="pairs").id

    dataset = known(RECORD, name, upload)
    create = client.evaluations.create
    id_ = known(RECORD, f"{name} {model} {limit}", lambda: create(dataset, model, limit=limit).id)
    return client.evaluations.get(id_).wait()


def stages(iterations: list[IterationOut]) -> str:
    """What every iteration was made of."""
    names = ("instructions", "pairs", "judgments_sampled", "judgments_kept", "training_examples")
    lines = ["| iteration | " + " | ".join(n.replace("_", " ") for n in names) + " | promoted |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for one in iterations:
        cells = [str(one.counts.get(name, 0)) for name in names]
        promoted = "yes" if one.metrics.get("promoted") else "no"
        lines.append(f"| {one.number} | {' | '.join(cells)} | {promoted} |")
    return "\n".join(lines) + "\n"


HEAD = (
    "| set | examples | version | strict | official | mean of both orders "
    "| position bias | ties | parse failures |\n" + "|---" * 9 + "|"
)


def line(name: str, number: int, found: Evaluation) -> str:
    figures = {s.scoring: {f.name: f for f in s.figures} for s in found.scores}
    cells = [name, str(found.examples_done), "seed" if number == 0 else str(number)]
    strict, official = figures["strict"], figures["official"]
    for one in (strict["overall"], official["overall"], strict["mean_accuracy"]):
        cells.append(f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})")
    for figure, form in (("position_bias", "+.2f"), ("ties", ".2f"), ("parse_failures", ".2f")):
        cells.append(format(strict[figure].value, form))
    return f"| {' | '.join(cells)} |"


PAIRED = "| set | scoring | seed | last | difference | McNemar p |\n" + "|---" * 6 + "|"


def against(name: str, seed: Evaluation, last: Evaluation) -> list[str]:
    """The last version against the seed, example by example."""
    return [
        f"| {name} | {one.scoring} | {one.first:.3f} | {one.second:.3f} "
        f"| {one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f}) | {one.p:.3f} |"
        for one in seed.compare(last.id).paired
    ]


if __name__ == "__main__":
    main()
