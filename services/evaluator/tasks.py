"""The evaluator's work: score a job's versions and decide promotion; evaluate on benchmarks; fill
review queues; judge batches.

    celery -A services.evaluator.tasks worker -Q evaluator --pool solo

Of the set that chooses checkpoints (validate.choose_on) half is the trainer's; the other half is
scored here, so that no version is promoted on the pairs that chose it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import aliases, jsonl, promotions
from selftaught.artifacts import publish_rows, resolve
from selftaught.benchmarks.base import Benchmark, Example
from selftaught.benchmarks.catalogue import BENCHMARKS
from selftaught.contracts import (
    BatchSettings,
    EvaluationSettings,
    ReviewSettings,
    SamplingSettings,
)
from selftaught.database import transaction
from selftaught.database.tables import (
    Chunk,
    Evaluation,
    Iteration,
    LoggedVerdict,
    ModelVersion,
    ReviewItem,
    Stage,
)
from selftaught.fences import fence_key
from selftaught.ids import new_id
from selftaught.judging.calibration import calibrations
from selftaught.judging.scoring import (
    count_outcomes,
    judge_outcomes,
    merge_counts,
    rights,
    summarise,
)
from selftaught.registry import judge_template
from selftaught.versions import open_version
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler, make_app
from services.evaluator import batch, calibration, evaluation, reviewing
from services.evaluator.ruling import sampling_of


def validate(lease: Lease) -> Result:
    """Judge a range of pairs in both orders, greedily, with the version's own judge template.

    Metrics: counts as in scoring.count_outcomes, and the log-odds of each pair for the gate's
    calibration.
    """
    with transaction() as session:
        version = session.get_one(ModelVersion, lease.input["version"])
    pairs = list(_pairs(lease.input))
    outcomes = judge_outcomes(
        open_version(version, lease.job_id),
        judge_template(version.lineage["template"]["name"]),
        pairs,
        lease.recipe.validate_.max_tokens,
        sure=True,
    )
    scored = count_outcomes(outcomes)
    return Result(
        counts={
            "tokens": scored["tokens"],
            "scored_pairs": len(pairs),
            "parse_failures": scored["parse_failures"],
        },
        metrics={
            "set": lease.input["set"],
            "version": version.id,
            "scored": scored,
            "right": rights(outcomes),
            "log_odds": [outcome["log_odds"] for outcome in outcomes],
        },
    )


def _pairs(chunk_input: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rows: Iterator[dict[str, Any]] = (
        row for path in chunk_input["paths"] for row in jsonl.read(resolve(path))
    )
    if "offset" in chunk_input:
        rows = islice(rows, chunk_input["offset"], chunk_input["offset"] + chunk_input["limit"])
    yield from islice(rows, 1, None, 2) if chunk_input["second"] else rows


def gate(lease: Lease) -> Result:
    """Sum up the validate stage's chunks; fit a temperature to each version's held-out pairs."""
    with transaction() as session:
        parts = session.scalars(
            select(Chunk.metrics)
            .join(Stage, Stage.id == Chunk.stage_id)
            .where(Stage.iteration_id == lease.iteration_id, Stage.kind == "validate")
            .order_by(Chunk.position)
        ).all()
    by_set: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for part in parts:
        by_set.setdefault((part["version"], part["set"]), []).append(part)
    found = {
        key: summarise(merge_counts(one["scored"] for one in of)) for key, of in by_set.items()
    }
    for version in {version for version, _ in by_set}:
        log_odds = {name: _log_odds(of) for (one, name), of in by_set.items() if one == version}
        for name, measured in calibrations(log_odds).items():
            found[version, name]["calibration"] = measured
    scored = [
        (version, name, found[version, name], _rights(chunks))
        for (version, name), chunks in by_set.items()
    ]
    return Result(extra={"scored": scored})


def _rights(parts: list[dict[str, Any]]) -> str | None:
    """Each pair's outcome, in the set's order; None if a chunk kept none, for then no place fits.

    Chunks that were validated before outcomes were kept have none.
    """
    kept = [part["right"] for part in parts if "right" in part]
    return "".join(kept) if len(kept) == len(parts) else None


def _log_odds(parts: list[dict[str, Any]]) -> list[float | None]:
    # Chunks that were validated before there was a calibration have none.
    return [one for part in parts for one in part.get("log_odds", [])]


def apply_gate(session: Session, lease: Lease, result: Result) -> dict[str, Any]:
    """Record the evaluations, and move `latest` if the gate allows; `candidate`, if all that is
    missing are people's reviews."""
    version_id = str(session.get_one(Iteration, lease.iteration_id).version_id)
    version = session.get_one(ModelVersion, version_id)
    for scored_id, name, metrics, right in result.extra["scored"]:
        template = session.get_one(ModelVersion, scored_id).lineage["template"]
        _record(session, scored_id, lease.job_id, name, metrics, template, right)
    session.flush()
    asked = promotions.Asked(f"gate of {lease.job_id}")
    decision = promotions.promote(session, version, aliases.LATEST, asked, lease.job_id)
    if promotions.waits_for_reviews(decision):
        why = f"gate of {lease.job_id}: waits for reviews"
        aliases.move(session, version.model, promotions.CANDIDATE, version, why)
    mine = promotions.scores(session, version_id, lease.job_id)
    return {
        **{name: dict(one.summary) for name, one in mine.items()},
        "promoted": decision.promoted,
        "findings": decision.findings,
    }


def evaluate(lease: Lease) -> Result:
    """A slice of a benchmark's examples, asked in every way that the scorings need."""
    settings, benchmark, examples = _benchmark(lease)
    with transaction() as session:
        version = session.get_one(ModelVersion, settings.version)
    first = lease.input["offset"]
    rows, counts = evaluation.ask(
        examples[first : first + lease.input["limit"]],
        benchmark,
        open_version(version, lease.job_id),
        evaluation.Templates(judge_template(settings.template)),
        settings,
        _sampling(version, settings),
    )
    answers = publish_rows("answers", lease.path("evaluate"), rows)
    return Result(counts=counts, artifact=answers)


def score(lease: Lease) -> Result:
    """All answers together: a score for each scoring, and the points of every example."""
    settings, benchmark, examples = _benchmark(lease)
    found = evaluation.scores(
        examples,
        (row for path in lease.input["answers"] for row in jsonl.read(resolve(path))),
        benchmark,
        evaluation.Templates(judge_template(settings.template)),
        settings,
    )
    points = publish_rows("points", lease.path("score"), evaluation.point_rows(found))
    scores: dict[str, Any] = {one.scoring: evaluation.as_json(one, settings) for one in found}
    return Result(metrics=scores, artifact=points)


def apply_score(session: Session, lease: Lease, result: Result) -> None:
    """The scores of this version with this template."""
    settings = EvaluationSettings.model_validate(lease.settings)
    for name, metrics in result.metrics.items():
        told = f"{settings.benchmark}/{name}"
        _record(session, settings.version, lease.job_id, told, metrics, metrics["template"])


def judge_batch(lease: Lease) -> Result:
    """Lines of a batch, as POST /judge would judge them."""
    settings = BatchSettings.model_validate(lease.settings)
    with transaction() as session:
        version = session.get_one(ModelVersion, settings.version)
    lines = jsonl.read_with_offsets(resolve(lease.input["lines"]), lease.input["offset"])
    engine = open_version(version, lease.job_id)
    lease.check()
    rows, counts = batch.judge(
        [row for _, row in islice(lines, lease.input["limit"])],
        settings,
        version,
        judge_template(settings.template),
        fence_key(),
        engine,
        calibration.load(version.id),
    )
    return Result(counts, artifact=publish_rows("results", lease.path("judge_batch"), rows))


def survey(lease: Lease) -> Result:
    """A slice of the drawn pairs, judged by the version and by the one it is held against."""
    settings = ReviewSettings.model_validate(lease.settings)
    pairs = _review_pairs(lease.input, settings.seed)
    judged = {}
    counts = {"pairs": len(pairs), "tokens": 0}
    for version_id in filter(None, (settings.version, settings.against)):
        with transaction() as session:
            version = session.get_one(ModelVersion, version_id)
        judged[version_id], tokens = reviewing.judge(
            pairs,
            open_version(version, lease.job_id),
            judge_template(version.lineage["template"]["name"]),
            sampling_of(version, settings.votes),
            settings.votes,
            settings.seed,
            fence_key(),
        )
        counts["tokens"] += tokens
        lease.check()
    mine, theirs = judged[settings.version], judged.get(settings.against or "")
    rows = (
        {
            **pair,
            "verdict": mine[at].verdict,
            "confidence": mine[at].confidence,
            "orders_agree": mine[at].agree,
            "against_verdict": theirs[at].verdict if theirs else None,
        }
        for at, pair in enumerate(pairs)
    )
    # Not among the job's downloads: a reviewer must not find there what a version said.
    path = lease.path("survey").replace("jobs/", "reviews/", 1)
    return Result(counts=counts, artifact=publish_rows("judged", path, rows))


def _review_pairs(asked: dict[str, Any], seed: int) -> list[jsonl.Row]:
    """The pairs of a survey's chunk; of logged questions those that are still kept."""
    if "questions" in asked:
        logged = LoggedVerdict.id.in_(asked["questions"])
        query = select(LoggedVerdict.id, LoggedVerdict.texts).where(logged)
        with transaction() as session:
            rows = session.execute(query.order_by(LoggedVerdict.id)).all()
        return [reviewing.logged_pair(name, texts) for name, texts in rows if texts is not None]
    places = reviewing.drawn(asked["rows"], asked["size"], seed)
    places = places[asked["offset"] : asked["offset"] + asked["limit"]]
    return list(reviewing.read_pairs(map(resolve, asked["paths"]), asked["second"], places))


def sample(lease: Lease) -> Result:
    """The items of the queue, drawn from all judged pairs."""
    settings = ReviewSettings.model_validate(lease.settings)
    with jsonl.Shelf([resolve(path) for path in lease.input["judged"]]) as shelf:
        judged = [(at, reviewing.stratum(row, settings.strata)) for at, row in shelf.walk()]
        items = reviewing.sample(
            judged, settings.strata, settings.size, lease.input["rows"], settings.seed
        )
        rows = [(item, shelf.fetch(item.key)) for item in items]
    counts = Counter(f"judged_{name}" for _, name in judged)
    counts.update(f"items_{item.stratum}" for item in items)
    return Result(counts=dict(counts), extra={"items": rows})


def apply_sample(session: Session, lease: Lease, result: Result) -> None:
    """The queue's rows; from now on they are given out."""
    settings = ReviewSettings.model_validate(lease.settings)
    for position, (item, row) in enumerate(result.extra["items"]):
        of_pair = {name: value for name, value in row.items() if name != "id"}
        session.add(
            ReviewItem(
                id=new_id("item"),
                job_id=lease.job_id,
                version_id=settings.version,
                against_id=settings.against,
                position=position,
                overlap=settings.overlap,
                stratum=item.stratum,
                weight=item.weight,
                swapped=item.swapped,
                pair=row["id"],
                **of_pair,
            )
        )


def _benchmark(lease: Lease) -> tuple[EvaluationSettings, Benchmark, list[Example]]:
    settings = EvaluationSettings.model_validate(lease.settings)
    examples = evaluation.read_examples(resolve(lease.input["examples"]), settings)
    return settings, BENCHMARKS[settings.benchmark], examples


def _sampling(version: ModelVersion, settings: EvaluationSettings) -> SamplingSettings:
    """Greedy for one vote; several are sampled as the version's recipe samples judgments."""
    limit = settings.max_tokens
    if settings.votes == 1:
        return SamplingSettings(temperature=0, max_tokens=limit)
    return SamplingSettings.model_validate(
        {**version.lineage["judge_sampling"], "max_tokens": limit}
    )


def _record(
    session: Session,
    version_id: str,
    job_id: str,
    name: str,
    metrics: dict[str, Any],
    template: dict[str, Any],
    right: str | None = None,
) -> None:
    session.add(
        Evaluation(
            id=new_id("ev"),
            version_id=version_id,
            job_id=job_id,
            set=name,
            template=template["name"],
            template_sha256=template["sha256"],
            metrics=metrics,
            right=right,
        )
    )


app = make_app(
    "evaluator",
    {
        "validate": Handler(validate),
        "gate": Handler(gate, apply_gate),
        "evaluate": Handler(evaluate),
        "score": Handler(score, apply_score),
        "survey": Handler(survey),
        "sample": Handler(sample, apply_sample),
        "judge_batch": Handler(judge_batch),
    },
)
