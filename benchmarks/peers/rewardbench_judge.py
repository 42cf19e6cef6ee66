"""RewardBench's side of benchmarks/judging.py: its own generative runner on rows from a file.

    python rewardbench_judge.py TASK.json

TASK: {url, model, rows: [{id, prompt, chosen, rejected, subset}], threads, seed}. The last line
that it prints is JSON: scores by subset, sections, every judged pair as it was shown with its
verdict, the template, seconds. `scripts.run_generative.main` runs as it is; what it would get from
its hub is given from here: `load_dataset` has our rows, and our model is one of OpenAI's. With a
`seed` numpy's generator is seeded, which it never is; with one thread its draws are then the rows'.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rewardbench.generative as generative  # type: ignore[import-not-found]
import rewardbench.utils as utils  # type: ignore[import-not-found]
from datasets import Dataset  # type: ignore[import-not-found]

script: Any = import_module("scripts.run_generative")  # its package; we have one of that name, too


def main() -> None:
    """Judge, and print what was found."""
    task = json.loads(Path(sys.argv[1]).read_text())
    os.environ["OPENAI_BASE_URL"] = task["url"]
    rows = Dataset.from_list(task["rows"])
    utils.load_dataset = lambda *args, **options: rows
    for module in (generative, script):
        module.OPENAI_MODEL_LIST = (*module.OPENAI_MODEL_LIST, task["model"])
        module.API_MODEL_LIST = (*module.API_MODEL_LIST, task["model"])
    if task["seed"] is not None:
        np.random.seed(task["seed"])
    judged: list[list[str]] = []
    judge = script.run_judge_pair

    def noted(prompt: str, first: Any, second: Any, *args: Any, **options: Any) -> Any:
        found = judge(prompt, first, second, *args, **options)
        judged.append([prompt, first[1]["content"], second[1]["content"], found[0]])
        return found

    script.run_judge_pair = noted
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes ./results
        options = ["--num_threads", str(task["threads"]), "--do_not_save", "--disable_beaker_save"]
        sys.argv = ["rewardbench-gen", "--model", task["model"], *options]
        began = time.perf_counter()
        script.main()
        ended = time.perf_counter()
        (file,) = Path("results/eval-set").glob("**/*.json")
        scores = json.loads(file.read_text())
    sections = utils.calculate_scores_per_section(
        script.EXAMPLE_COUNTS, script.SUBSET_MAPPING, scores
    )
    shown = [[{}, {"content": text}] for text in ("{response_a}", "{response_b}")]
    system, user = generative.format_judge_answers("{instruction}", *shown)
    found = {
        "version": version("rewardbench"),
        "scores": {subset: scores[subset] for subset in {row["subset"] for row in task["rows"]}},
        "sections": sections,
        "judged": judged,
        "template": {"system": system, "user": user},
        "seconds": ended - began,
    }
    print()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
