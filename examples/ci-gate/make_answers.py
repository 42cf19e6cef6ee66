"""Writes old.jsonl, better.jsonl and worse.jsonl: 40 questions that the shipped small judge knows.

The small world's instructions (seeds/README.md) have answers that one can check by eye, so that the
gate can be tried without a large model: `old` is right on 28 of 40, `better` on 38, `worse` on 10.
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
RIGHT = {"old": 28, "better": 38, "worse": 10}


def main() -> None:
    rng = random.Random(11)
    questions = []
    for number in range(40):
        letters = rng.sample("abcdefghijklmnopqrstuvwxyz", rng.choice([3, 4]))
        gone = letters[1]
        good = [letter for letter in letters if letter != gone]
        bad = [*good, good[-1]] if number % 2 else good[:-1]  # one letter too many, or too few
        asked = f"Remove each {gone} from this: {' '.join(letters)}"
        questions.append((f"q{number}", asked, " ".join(good), " ".join(bad)))
    for name, right in RIGHT.items():
        chosen = set(random.Random(name).sample(range(40), right))
        rows = [
            {
                "id": key,
                "instruction": asked,
                "response": good if number in chosen else bad,
            }
            for number, (key, asked, good, bad) in enumerate(questions)
        ]
        (HERE / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
