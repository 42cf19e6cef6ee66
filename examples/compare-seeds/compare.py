"""Which of two seed models makes the better judge, by the same recipe on the same prompts?

python compare.py prompts.jsonl labelled.jsonl SEED SEED --recipe RECIPE [--seeds-only]

Trains a judge from each seed, judges the labelled pairs with both, and tests the difference pair by
pair (exact McNemar). `--seeds-only` compares the seeds as they are, untrained. Exit status 0,
whoever wins; the last line says it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from selftaught import Client
from selftaught.client import Evaluation


def judge_of(client: Client, seed: str, prompts: str, options: argparse.Namespace) -> str:
    """The version to compare: a trained one, or the seed as it is."""
    if options.seeds_only:
        job = client.models.register(
            seed, name=f"seed-{seed}", template=options.template, max_tokens=options.max_tokens
        )
    else:
        changes: dict[str, Any] = json.loads(options.overrides)
        job = client.jobs.create(
            dataset=prompts,
            recipe=options.recipe,
            overrides={**changes, "base_model": seed},
            model=f"from-{seed}",
        )
    print(f"{seed}: {job.id}")
    job.wait()
    newest = [one.model_version for one in job.iterations() if one.model_version][-1]
    return str(newest)


def evaluated(client: Client, version: str, labelled: str) -> Evaluation:
    """A version on the labelled pairs, both orders, greedy."""
    return client.evaluations.create(dataset=labelled, model=version, scoring=["strict"]).wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("labelled", type=Path)
    parser.add_argument("seeds", nargs=2, metavar="SEED")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--overrides", default="{}", help="JSON, merged into the recipe")
    parser.add_argument("--seeds-only", action="store_true")
    parser.add_argument("--template", default="mt-bench", help="of the seeds as they are")
    parser.add_argument("--max-tokens", type=int, default=1024, help="of their judgments")
    options = parser.parse_args()
    with Client() as client:
        prompts = client.datasets.upload(options.prompts).id
        labelled = client.datasets.upload(options.labelled, kind="labelled").id
        versions = [judge_of(client, seed, prompts, options) for seed in options.seeds]
        first, second = (evaluated(client, version, labelled) for version in versions)
        (paired,) = first.compare(second.id).paired
    print(f"{versions[0]}: strict accuracy {paired.first:.3f}")
    print(f"{versions[1]}: strict accuracy {paired.second:.3f}")
    print(
        f"difference {paired.difference:+.3f} (95 % {paired.low:+.3f} to {paired.high:+.3f}) on "
        f"{paired.n} pairs; right in one only: {paired.only_first} and {paired.only_second}; "
        f"McNemar p = {paired.p:.3f}"
    )
    if paired.p >= 0.05:
        print("no difference that chance does not explain")
    else:
        print(f"better: {versions[paired.difference > 0]}")


if __name__ == "__main__":
    main()
