"""A version on a benchmark: what it is shown, what it wrote, and the scores that follow from it.

Knows nothing of jobs or databases. Everything that one scoring or another needs is asked once, so
`strict` and `official` read the same answers. Greedy, or a vote of several samples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from selftaught import jsonl
from selftaught.benchmarks import pairs, rewardbench2
from selftaught.benchmarks.base import Answer, Benchmark, Example, Judgments, Score, Shown
from selftaught.contracts import EvaluationSettings
from selftaught.hashing import canonical_sha256, stable_seed
from selftaught.inference import Engine, Request, Sampling
from selftaught.judging import (
    BestOfFourTemplate,
    JudgeTemplate,
    Message,
    RatingTemplate,
    load_template,
)


@dataclass(frozen=True)
class Templates:
    """How a judge is asked about two responses, four, or one."""

    judge: JudgeTemplate

    def show(self, example: Example, shown: Shown) -> list[Message]:
        """Chat messages that show these responses in this order."""
        responses = [example.responses[place] for place in shown]
        if len(shown) == 2:
            first, second = responses
            return self.judge.render(example.instruction, first, second)
        if len(shown) == 4:
            four = load_template("best-of-four")
            assert isinstance(four, BestOfFourTemplate)
            return four.render(example.instruction, responses)
        rating = load_template("rating")
        assert isinstance(rating, RatingTemplate)
        return rating.render(example.instruction, responses[0])


def asked_with(settings: EvaluationSettings, scoring: str) -> dict[str, str]:
    """Name and hash of what a scoring asks with; RewardBench 2's official one has its own two."""
    if settings.benchmark == rewardbench2.NAME and scoring == "official":
        both = [load_template(name) for name in ("best-of-four", "rating")]
        return {
            "name": " + ".join(one.name for one in both),
            "sha256": canonical_sha256([one.sha256 for one in both]),
        }
    return {"name": settings.template, "sha256": settings.template_sha256}


def read_examples(path: Path, settings: EvaluationSettings) -> list[Example]:
    """The examples to judge, in the file's order: all, or `limit` of them drawn by the seed.

    `path` holds examples as an upload of kind `benchmark` stores them, or labelled pairs.
    """
    rows = jsonl.read(path)
    if settings.benchmark == pairs.NAME and settings.labelled:
        examples = list(pairs.read(enumerate(rows, 1)))
    else:
        examples = [Example.from_row(row) for row in rows]
    if settings.limit is None:
        return examples
    drawn = sorted(examples, key=lambda one: stable_seed(settings.seed, "limit", one.id))
    kept = {one.id for one in islice(drawn, settings.limit)}
    return [one for one in examples if one.id in kept]


def ask(
    examples: Sequence[Example],
    benchmark: Benchmark,
    engine: Engine,
    templates: Templates,
    settings: EvaluationSettings,
    sampling: Sampling,
) -> tuple[list[jsonl.Row], dict[str, int]]:
    """Everything that the scorings need about these examples.

    Rows: {example, shown, vote, text, finish_reason, completion_tokens}. Counts: examples, answers,
    truncated (by the length limit), too_long (prompts the model cannot take), prompt_tokens (each
    prompt once), tokens (written). The random numbers depend on (seed, example, shown) only.
    """
    questions: list[tuple[Example, Shown]] = []
    for example in examples:
        wanted = [
            s for name in settings.scoring for s in benchmark.asks(example, name, settings.seed)
        ]
        questions += [(example, shown) for shown in dict.fromkeys(wanted)]
    requests = [
        Request(
            templates.show(example, shown),
            stable_seed(settings.seed, "evaluate", example.id, *shown),
            n=settings.votes,
        )
        for example, shown in questions
    ]
    rows, counts = [], Counter(examples=len(examples))
    answers = engine.generate(requests, sampling)
    for (example, shown), votes in zip(questions, answers, strict=True):
        counts["prompt_tokens"] += votes[0].prompt_tokens
        counts["too_long"] += votes[0].finish_reason == "rejected"
        for number, vote in enumerate(votes):
            counts["answers"] += 1
            counts["tokens"] += vote.completion_tokens
            counts["truncated"] += vote.finish_reason == "length"
            rows.append(
                {
                    "example": example.id,
                    "shown": shown,
                    "vote": number,
                    "text": vote.text,
                    "finish_reason": vote.finish_reason,
                    "completion_tokens": vote.completion_tokens,
                }
            )
    return rows, dict(counts)


def scores(
    examples: Sequence[Example],
    answers: Iterable[jsonl.Row],
    benchmark: Benchmark,
    templates: Templates,
    settings: EvaluationSettings,
) -> list[Score]:
    """One score for each scoring, from the rows of :func:`ask`."""
    votes: defaultdict[tuple[str, Shown], list[Answer]] = defaultdict(list)
    for row in answers:
        answer = Answer(row["text"], row["finish_reason"] == "stop")
        votes[row["example"], tuple(row["shown"])].append(answer)
    judgments = Judgments(templates.judge, votes)
    return [benchmark.score(examples, judgments, name, settings.seed) for name in settings.scoring]


def as_json(score: Score, settings: EvaluationSettings) -> dict[str, Any]:
    """A score without its points by example, as `ScoreOut`."""
    figures = [{"name": name, **asdict(one)} for name, one in score.figures.items()]
    return {
        "scoring": score.scoring,
        "template": asked_with(settings, score.scoring),
        "figures": figures,
        "counts": score.counts,
    }


def point_rows(found: Iterable[Score]) -> Iterable[jsonl.Row]:
    """{scoring, example, points}: what a paired test between two versions needs."""
    for score in found:
        for example, points in score.rights.items():
            yield {"scoring": score.scoring, "example": example, "points": points}
