"""prometheus-eval's side of benchmarks/judging.py: its relative grading of rows from a file.

    python prometheus_judge.py TASK.json

TASK: {url, model, rows: [{prompt, first, second}], way, threads, params}. The last line that it
prints is JSON: grades (A, B or null), the template, seconds. The ways: `LiteLLM`, which asks one by
one; `AsyncLiteLLM`, without its limit of 100 requests a minute; `threads`, which is LiteLLM's call
from a pool, and not prometheus-eval's own.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from litellm import completion  # type: ignore[import-not-found]
from prometheus_eval import PrometheusEval  # type: ignore[import-not-found]
from prometheus_eval.litellm import (  # type: ignore[import-not-found]
    AsyncLiteLLM,
    LiteLLM,
)
from prometheus_eval.prompts import (  # type: ignore[import-not-found]
    HELPFULNESS_RUBRIC,
    REL_SYSTEM_PROMPT,
    RELATIVE_PROMPT_WO_REF,
)

UNLIMITED = 10**6


class Threads(LiteLLM):  # type: ignore[misc]
    """LiteLLM whose calls are made side by side."""

    def __init__(self, name: str, api_base: str, threads: int) -> None:
        super().__init__(name, api_base=api_base)
        self.threads = threads

    def completions(self, messages: list[Any], **options: Any) -> list[str]:
        """As LiteLLM's."""
        known = {name: options[name] for name in ("max_tokens", "temperature", "top_p")}

        def one(message: Any) -> str:
            answer = completion(model=self.name, api_base=self.api_base, messages=message, **known)
            return str(answer.choices[0].message.content).strip()

        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(one, messages))


def model(task: dict[str, Any]) -> Any:
    """What asks the server."""
    name, url = f"openai/{task['model']}", task["url"]
    if task["way"] == "LiteLLM":
        return LiteLLM(name, api_base=url)
    if task["way"] == "AsyncLiteLLM":
        return AsyncLiteLLM(name, api_base=url, batch_size=UNLIMITED, requests_per_minute=UNLIMITED)
    return Threads(name, url, task["threads"])


def main() -> None:
    """Grade, and print what was found."""
    task = json.loads(Path(sys.argv[1]).read_text())
    rows = task["rows"]
    began = time.perf_counter()
    grader = PrometheusEval(model=model(task), relative_grade_template=RELATIVE_PROMPT_WO_REF)
    _, grades = grader.relative_grade(
        instructions=[row["prompt"] for row in rows],
        responses_A=[row["first"] for row in rows],
        responses_B=[row["second"] for row in rows],
        rubric=HELPFULNESS_RUBRIC,
        params=task["params"],
    )
    ended = time.perf_counter()
    user = RELATIVE_PROMPT_WO_REF.format(
        instruction="{instruction}",
        response_A="{response_a}",
        response_B="{response_b}",
        rubric=HELPFULNESS_RUBRIC,
    )
    found = {
        "version": version("prometheus-eval"),
        "grades": grades,
        "template": {"system": REL_SYSTEM_PROMPT, "user": user},
        "seconds": ended - began,
    }
    print()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
