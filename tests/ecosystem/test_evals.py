"""Evaluations of Inspect AI and of lm-eval, scored by the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from selftaught.integrations.inspect import pairwise_judge

ASK = "Swap the first and the last letter: "
SAMPLES = [("m f q", "q f m", "q m"), ("a b", "b", "b a"), ("a b c", "c b a", "c b a")]


@pytest.mark.parametrize("baseline", [None, "other"])
def test_an_inspect_eval(baseline: str | None) -> None:
    outputs = [ModelOutput.from_content("mockllm/model", answer) for _, answer, _ in SAMPLES]
    for output in outputs:
        output.usage = ModelUsage()  # or tiktoken would count, with a table from the internet
    task = Task(
        dataset=[
            Sample(input=ASK + asked, target=other, metadata={"other": other})
            for asked, _, other in SAMPLES
        ],
        scorer=pairwise_judge(model="tour:0", baseline=baseline),
    )
    model = get_model("mockllm/model", custom_outputs=outputs)
    (log,) = eval(task, model=model, max_samples=1)
    assert log.status == "success", log.error
    scores = [sample.scores["pairwise_judge"] for sample in log.samples]
    assert [one.value for one in scores] == ["C", "I", "P"]
    assert "AB: " in scores[0].explanation and scores[0].metadata["model"] == "tour:0"
    metrics = log.results.scores[0].metrics
    assert metrics["accuracy"].value == pytest.approx(0.5) and metrics["stderr"].value > 0


def test_an_lm_eval_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    rows = [{"question": ASK + asked, "answer": other} for asked, _, other in SAMPLES]
    Dataset.from_list(rows).to_json(tmp_path / "rows.jsonl")
    (tmp_path / "judged.py").write_text(
        "from selftaught.integrations.lm_eval import pairwise\n"
        'process_results = pairwise("question", "answer", model="tour:0")\n'
    )
    (tmp_path / "swap.yaml").write_text(
        f"""\
task: swap
dataset_path: json
dataset_kwargs: {{data_files: {tmp_path}/rows.jsonl}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
process_results: !function judged.process_results
metric_list:
  - {{metric: win, aggregation: mean, higher_is_better: true}}
  - {{metric: unparsable, aggregation: mean, higher_is_better: false}}
"""
    )
    answers = {ASK + asked: answer for asked, answer, _ in SAMPLES}

    class Scripted(LM):
        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return [answers[one.args[0]] for one in requests]

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    found = simple_evaluate(
        Scripted(), tasks=["swap"], task_manager=TaskManager(include_path=str(tmp_path))
    )["results"]["swap"]
    assert found["win,none"] == pytest.approx(0.5) and found["unparsable,none"] == 0
    assert found["win_stderr,none"] > 0
