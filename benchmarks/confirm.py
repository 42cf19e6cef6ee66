"""The proof's arms once more, on labelled pairs that nobody has looked at.

    python -m benchmarks.confirm "ARM" "ARM" ..    (in the home of a finished `make proof`)

Arms that were added because of scores on the shipped test set cannot be proven on that set. This
draws 2,400 new pairs with the letters and the corruption of the test split, none of which stands in
`test.jsonl`, judges them with the last version of every run of these arms, and compares the first
arm with each of the others, pair by pair, for each loop seed. Prints Markdown; goes on where an
earlier run was stopped.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from benchmarks.frame import commit
from benchmarks.proof import HOME, SEEDS, WORLD
from seeds.splits import pairs
from seeds.world import disorder
from selftaught.client import Client, Evaluation
from selftaught.contracts import Figure
from selftaught.controls import known
from selftaught.stack.handle import Stack

Json = dict[str, Any]
RECORD = HOME / "confirm.json"
PAIRS, DRAW = 2_400, 26  # how many, and the seed of the draw


def main() -> None:
    """Evaluate, then print means, every run, and differences."""
    arms = sys.argv[1:]
    (jobs,) = (json.loads(path.read_text()) for path in HOME.glob("jobs-*.json"))
    found: dict[str, Evaluation] = {}
    with Stack(HOME, port=0) as stack, Client(stack.gateway_url) as client:
        dataset = known(RECORD, "pairs", lambda: upload(client))
        for name in (f"{arm}/{seed}" for arm in arms for seed in SEEDS):
            last = list(client.jobs.get(jobs[name]).iterations())[-1]
            found[name] = evaluate(client, dataset, name, str(last.model_version))
            print(f"{name}: {strict(found[name]).value:.4f}", file=sys.stderr, flush=True)
        print("\n".join(table(arms, found)))
        print("\n".join(differences(arms, found)))
    print(f"\nMade by `python -m benchmarks.confirm` with these arms at commit {commit()}.")


def upload(client: Client) -> str:
    """Fresh pairs: as the test file was drawn, by another seed and without its instructions."""
    with (WORLD / "test.jsonl").open() as file:
        seen = {json.loads(line)["instruction"] for line in file}

    def fresh() -> Iterator[Json]:
        drawn = pairs(random.Random(DRAW), "test", PAIRS + len(seen), disorder)
        yield from (row for row in drawn if row["instruction"] not in seen)

    path = HOME / "confirm.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in islice(fresh(), PAIRS)))
    return client.datasets.upload(path, "benchmark", benchmark="pairs").id


def evaluate(client: Client, dataset: str, name: str, model: str) -> Evaluation:
    """The strict evaluation of a version, once it has succeeded."""
    create = client.evaluations.create
    id_ = known(RECORD, name, lambda: create(dataset, model, scoring=["strict"]).id)
    return client.evaluations.get(id_).wait()


def strict(found: Evaluation) -> Figure:
    """The overall figure."""
    return next(figure for figure in found.scores[0].figures if figure.name == "overall")


def table(arms: list[str], found: dict[str, Evaluation]) -> Iterator[str]:
    """Strict accuracy by arm, mean and loop seed by loop seed."""
    yield f"| arm | mean | {' | '.join(f'loop seed {seed}' for seed in SEEDS)} |"
    yield "|---" * (2 + len(SEEDS)) + "|"
    for arm in arms:
        scores = [strict(found[f"{arm}/{seed}"]).value for seed in SEEDS]
        cells = " | ".join(f"{score:.4f}" for score in scores)
        yield f"| {arm} | **{statistics.mean(scores):.4f}** | {cells} |"
    yield ""


def differences(arms: list[str], found: dict[str, Evaluation]) -> Iterator[str]:
    """The first arm against each other one, on the same pairs."""
    first = arms[0]
    yield f"| {first} against | loop seed | difference | 95 % interval | McNemar p |"
    yield "|---" * 5 + "|"
    for arm in arms[1:]:
        for seed in SEEDS:
            (one,) = found[f"{arm}/{seed}"].compare(found[f"{first}/{seed}"].id).paired
            interval = f"{one.low:+.4f} to {one.high:+.4f}"
            yield f"| {arm} | {seed} | {one.difference:+.4f} | {interval} | {one.p:.2g} |"


if __name__ == "__main__":
    main()
