"""Fails if the judge likes a prompt's new answers significantly less than its old ones.

python gate.py old.jsonl new.jsonl --model judge:7

Each file has a line {"id", "instruction", "response"} for each question of a fixed set: what the
prompt in production answers, and what the changed one does. The same version judges every pair, in
both orders; a verdict that the orders do not agree on is a tie. Ties say nothing, so what counts is
an exact sign test: were new and old equally good, each would win a pair like a fair coin.

Exit status: 0 not worse, 1 worse, 2 the files do not fit together or too much could not be judged.
"""

import argparse
import json
import sys
from collections import Counter
from math import comb
from pathlib import Path

from selftaught import Client

UNREADABLE = 0.2
"""More than this share of pairs without a verdict: the judge cannot be asked this."""


def read(path: Path) -> dict[str, dict[str, str]]:
    """The answers of a file, by id."""
    rows = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return {row["id"]: row for row in rows}


def at_most(lost: int, decided: int) -> float:
    """P(a fair coin gives `lost` or more heads in `decided` throws): one-sided sign test."""
    return sum(comb(decided, k) for k in range(lost, decided + 1)) / 2**decided


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--model", required=True, help="name:number, so that only the prompt changes"
    )
    parser.add_argument("--rubric", help="what a good answer must do")
    parser.add_argument("--alpha", type=float, default=0.05, help="fail below this p")
    options = parser.parse_args()
    old, new = read(options.old), read(options.new)
    if old.keys() != new.keys() or any(old[i]["instruction"] != new[i]["instruction"] for i in old):
        print("old and new do not answer the same questions", file=sys.stderr)
        return 2
    pairs = [
        {
            "custom_id": name,
            "instruction": old[name]["instruction"],
            "response_a": old[name]["response"],
            "response_b": new[name]["response"],
            **({"rubric": options.rubric} if options.rubric else {}),
        }
        for name in sorted(old)
    ]
    won: Counter[str] = Counter()
    with Client() as client:
        batch = client.batches.create(pairs, model=options.model, explain=True)
        for line in batch.results():
            verdict = line.result.verdict if line.result else "unparsable"
            won[verdict] += 1
            if verdict == "A":
                print(f"lost: {line.custom_id}: {old[line.custom_id]['instruction'][:70]}")
    better, worse = won["B"], won["A"]
    unreadable = won["unparsable"]
    p = at_most(worse, better + worse)
    print(
        f"{len(pairs)} questions, judged by {batch.model}: new better {better}, "
        f"old better {worse}, ties {won['tie']}, unreadable {unreadable}; sign test p = {p:.4f}"
    )
    if unreadable > UNREADABLE * len(pairs):
        print("too many pairs could not be judged", file=sys.stderr)
        return 2
    if p < options.alpha:
        print("the new prompt is worse")
        return 1
    print("no evidence that the new prompt is worse")
    return 0


if __name__ == "__main__":
    sys.exit(main())
