"""A part of a batch: lines in, results out; of each what POST /judge would say.

Knows nothing of jobs or databases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from itertools import chain, islice

from selftaught.contracts import BatchLine, BatchResult, BatchSettings, JudgeIn, Problem
from selftaught.database.tables import ModelVersion
from selftaught.inference import Engine
from selftaught.jsonl import Row
from selftaught.judging import JudgeTemplate
from services.evaluator.calibration import Calibration
from services.evaluator.ruling import TooLong, requests_of, ruling, sampling_of


def judge(
    lines: Sequence[Row],
    settings: BatchSettings,
    version: ModelVersion,
    template: JudgeTemplate,
    key: bytes,
    engine: Engine,
    calibration: Calibration | None = None,
) -> tuple[list[Row], dict[str, int]]:
    """Results of these lines, {custom_id, line, result, error}, in their order, and counts.

    `key` and `calibration` as in :mod:`ruling`. Counts: completed, failed (too long for the model),
    verdict_A, verdict_B, verdict_tie, verdict_unparsable, prompt_tokens (each order's prompt once),
    tokens (written).
    """
    questions = [_question(line, settings) for line in lines]
    asked = [requests_of(question, template, key) for question in questions]
    sampling = sampling_of(version, settings.votes)
    answers = iter(engine.generate(list(chain.from_iterable(asked)), sampling))
    rows: list[Row] = []
    counts: Counter[str] = Counter(completed=0, failed=0)
    for line, question, requests in zip(lines, questions, asked, strict=True):
        found = list(islice(answers, len(requests)))
        counts["prompt_tokens"] += sum(votes[0].prompt_tokens for votes in found)
        counts["tokens"] += sum(vote.completion_tokens for votes in found for vote in votes)
        result = BatchResult(custom_id=line["custom_id"], line=line["line"])
        try:
            result.result = ruling(question, version, template, found, calibration)
        except TooLong as error:
            counts["failed"] += 1
            title = HTTPStatus.UNPROCESSABLE_ENTITY.phrase
            result.error = Problem(title=title, status=422, code="too_long", detail=str(error))
        else:
            counts["completed"] += 1
            counts[f"verdict_{result.result.verdict}"] += 1
        rows.append(result.model_dump(mode="json"))
    return rows, dict(counts)


def _question(line: Row, settings: BatchSettings) -> JudgeIn:
    fields = {name: value for name, value in line.items() if name != "line"}
    return settings.question(BatchLine.model_validate(fields))
