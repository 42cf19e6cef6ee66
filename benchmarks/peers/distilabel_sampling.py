"""distilabel's side of benchmarks/tokens.py: a pipeline that samples N replies to each prompt.

    python distilabel_sampling.py TASK.json

TASK: {url, model, prompts, samples, sampling: {temperature, top_p, max_tokens}}. The last line of
what it prints is JSON: texts (by prompt, N each), tokens and prompt_tokens of each prompt as the
server counted them, and three times in seconds: of `Pipeline.run` (its processes and files
included), of its one batch of requests, and of the imports.

All prompts are one batch, so all are in flight at once and none waits for another (by default 50
would wait for the slowest of them). N replies are one request with n=N, which is what OpenAILLM
sends. Its time-out (120 s by default) is far off, so that nothing is asked twice. It is told to
cache nothing, so that it asks anew.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DISTILABEL_LOG_LEVEL"] = "WARNING"

from distilabel.models import OpenAILLM  # type: ignore[import-not-found]  # noqa: E402
from distilabel.pipeline import Pipeline  # type: ignore[import-not-found]  # noqa: E402
from distilabel.steps import LoadDataFromDicts  # type: ignore[import-not-found]  # noqa: E402
from distilabel.steps.tasks import TextGeneration  # type: ignore[import-not-found]  # noqa: E402

IMPORTED = time.perf_counter()
HOURS = 3600


class Clocked(OpenAILLM):  # type: ignore[misc]
    """Writes down how long its requests took; it runs in a process of the pipeline's."""

    clock: str

    def generate(self, *args: Any, **more: Any) -> Any:
        """A batch."""
        began = time.perf_counter()
        found = super().generate(*args, **more)
        with Path(self.clock).open("a") as file:
            file.write(f"{time.perf_counter() - began}\n")
        return found


def main() -> None:
    """Run the pipeline once."""
    task = json.loads(Path(sys.argv[1]).read_text())
    rows = [{"number": at, "instruction": prompt} for at, prompt in enumerate(task["prompts"])]
    sampling = dict(task["sampling"])
    sampling["max_new_tokens"] = sampling.pop("max_tokens")
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"
        began = time.perf_counter()
        with Pipeline(name="judge", cache_dir=folder, enable_metadata=True) as pipeline:
            load = LoadDataFromDicts(name="load", data=rows, batch_size=len(rows))
            llm = Clocked(
                model=task["model"],
                base_url=task["url"],
                api_key="none",
                timeout=HOURS,
                generation_kwargs=sampling,
                clock=str(clock),
            )
            judge = TextGeneration(
                name="judge",
                llm=llm,
                num_generations=task["samples"],
                group_generations=True,
                input_batch_size=len(rows),
                add_raw_output=False,
                add_raw_input=False,
                use_cache=False,
            )
            load >> judge
        found = pipeline.run(use_cache=False)["default"]["train"].to_list()
        seconds = time.perf_counter() - began
        batches = [float(line) for line in clock.read_text().splitlines()]
    found.sort(key=lambda row: row["number"])
    texts = [row["generation"] for row in found]
    # One request that fails leaves its whole batch without texts, and nothing is raised.
    assert len(texts) == len(rows), "rows are missing"
    assert all(len(one) == task["samples"] and None not in one for one in texts), (
        "texts are missing"
    )
    # With n=N each of the N statistics has the whole request's counts.
    counts = [row["distilabel_metadata"][0]["statistics_judge"] for row in found]
    told = {
        "texts": texts,
        "tokens": [one["output_tokens"] for one in counts],
        "prompt_tokens": [one["input_tokens"] for one in counts],
        "seconds": seconds,
        "batches": batches,
        "import_seconds": IMPORTED - BEGAN,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
