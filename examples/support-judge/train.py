"""A judge for support answers, from 300 customers' messages and no label.

python train.py --recipe RECIPE [--overrides FILE.json]
"""

import argparse
import json
from pathlib import Path

from selftaught import Client

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True, help="a name, see `selftaught recipes list`")
    parser.add_argument("--overrides", type=Path, help="settings that differ from the recipe's")
    parser.add_argument("--model", default="support-judge")
    options = parser.parse_args()
    overrides = json.loads(options.overrides.read_text()) if options.overrides else {}
    with Client() as client:
        prompts = client.datasets.upload(HERE / "prompts.jsonl", name="support prompts")
        # Never trained on: every version is scored on them, and a fall stops its promotion.
        checks = client.datasets.upload(
            HERE / "labelled.jsonl", kind="labelled", name="support checks"
        )
        job = client.jobs.create(
            dataset=prompts.id,
            labelled_dataset=checks.id,
            recipe=options.recipe,
            overrides=overrides,
            model=options.model,
        )
        print(f"{job.id}: {prompts.rows} prompts, recipe {options.recipe}")
        job.wait(on_event=lambda event: print(f"  {event.type}"))
        for one in job.iterations():
            scores = one.metrics
            print(
                f"iteration {one.number}: {one.model_version}, "
                f"{one.counts.get('training_examples', 0)} examples, strict accuracy "
                f"{scores['heldout']['strict_accuracy']:.3f} on held-out pairs, "
                f"{scores['labelled']['strict_accuracy']:.3f} on the checks"
            )
        verdict = client.judge(
            "I was charged twice for order TV-48213.",
            "I am sorry. The second charge is refunded and back on your card within five days.",
            "Thank you for reaching out! Your feedback helps us improve.",
            model=options.model,
        )
        print(f"verdict: {verdict.verdict} by {verdict.model}")


if __name__ == "__main__":
    main()
