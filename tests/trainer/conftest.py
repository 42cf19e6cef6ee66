"""A tiny base model and a judging lesson that it can learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftaught.judging import load_judge_template
from tests import tiny


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base") / "model")


def lesson(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(training rows, pairs): the response that says `good` wins."""
    template = load_judge_template("smallworld")
    pairs = [
        {"id": f"p{i}", "instruction": f"q{i}", "chosen": "good", "rejected": "bad"}
        for i in range(count)
    ]
    rows = [
        {
            "prompt": template.show(pair, order),
            "completion": [{"role": "assistant", "content": f"[[{order[0]}]]"}],
        }
        for pair in pairs
        for order in ("AB", "BA")
    ]
    return rows, pairs


def preferences(count: int) -> list[dict[str, Any]]:
    """Preference rows of the same lesson: the wrong judgment names the other response."""
    return [
        {
            "prompt": row["prompt"],
            "chosen": row["completion"],
            "rejected": [{"role": "assistant", "content": f"no, [[{wrong}]]"}],
        }
        for row, wrong in zip(lesson(count)[0], "BA" * count, strict=True)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
