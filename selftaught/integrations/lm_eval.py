"""lm-eval: `process_results` for a task whose answers are judged against other ones.

Beside the task's YAML, in `judged.py`:

    from selftaught.integrations.lm_eval import pairwise
    process_results = pairwise(instruction="question", baseline="answer")

and in the YAML `process_results: !function judged.process_results`, with a `metric_list` of `win`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selftaught import Client

Document = Mapping[str, Any]


def pairwise(
    instruction: str | Callable[[Document], str],
    baseline: str | Callable[[Document], str],
    model: str | None = None,
    client: Client | None = None,
    **options: Any,
) -> Callable[[Document, Sequence[str]], dict[str, float]]:
    """A `process_results`: `win` is 1 if the answer is better than the baseline's, 0 if it is worse
    and 0.5 for a tie; without a readable verdict too, as lm-eval leaves no document out, and then
    `unparsable` is 1 instead of 0.

    `instruction` and `baseline`: fields of a document, or functions of it. `model`: the judge, as
    name, name:alias or name:number; default: the only model's `latest`. `client`: default: by the
    environment (SELFTAUGHT_URL, SELFTAUGHT_API_KEY). `options`: more of `Client.judge`.
    """
    known: list[Client] = [] if client is None else [client]

    def process_results(document: Document, results: Sequence[str]) -> dict[str, float]:
        if not known:  # when it is first asked: lm-eval also loads tasks to list them
            known.append(Client())
        verdict = (
            known[0]
            .judge(
                _field(document, instruction),
                results[0],
                _field(document, baseline),
                **{"model": model, **options},
            )
            .verdict
        )
        win = {"A": 1.0, "B": 0.0}.get(verdict, 0.5)
        return {"win": win, "unparsable": float(verdict == "unparsable")}

    return process_results


def _field(document: Document, field: str | Callable[[Document], str]) -> str:
    return str(field(document) if callable(field) else document[field])
