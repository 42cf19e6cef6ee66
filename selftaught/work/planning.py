"""What the stages of a job are, and what each one's chunks are made of: the plan, from rows.

The loop: iteration 0 prepares and scores the seed; iterations 1..n each make pairs (or go on with
those of iteration 1), judge them, curate, train and score the result. Jobs of the other kinds (a
base model's registration, a version's evaluation on a benchmark, a batch of pairs to judge) have an
iteration 0 and no other. Every function here runs inside the caller's transaction, with the job's
row locked, and reads rows; `pipeline` writes them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught.contracts import Recipe, ReviewSettings
from selftaught.database.tables import (
    Alias,
    Artifact,
    Chunk,
    Dataset,
    Evaluation,
    Iteration,
    Job,
    ModelVersion,
    Stage,
)
from selftaught.keeping import holds
from selftaught.work.events import emit
from selftaught.work.sources import TRAFFIC, drawn_questions, find_source

SEED_STAGES = ("register", "select", "pair", "validate", "gate")
LABEL_STAGES = ("label", "choose")  # behind select, if the recipe has quotas
LOOP_STAGES = ("pair", "judge", "curate", "train", "validate", "gate")
OTHER_STAGES = {
    "registration": ("register",),
    "evaluation": ("evaluate", "score"),
    "review": ("survey", "sample"),
    "batch": ("judge_batch",),
}
QUEUES = {
    "select": "generator",
    "label": "generator",
    "choose": "generator",
    "pair": "generator",
    "judge": "generator",
    "curate": "generator",
    "register": "trainer",
    "evaluate": "evaluator",
    "score": "evaluator",
    "survey": "evaluator",
    "sample": "evaluator",
    "judge_batch": "evaluator",
    "train": "trainer",
    "validate": "evaluator",
    "gate": "evaluator",
}
VALIDATE_CHUNK = 1024  # labelled pairs per validate chunk; even, for every second one of them
EVALUATE_CHUNK = 64  # examples judged per evaluate chunk
SURVEY_CHUNK = 64  # pairs judged per survey chunk
SURVEYED = 4  # pairs judged for each item of a review queue
BATCH_CHUNK = 128  # pairs of a batch per chunk, if each gets one vote in each order

Inputs = list[dict[str, Any]]


def stages(job: Job, number: int) -> tuple[str, ...]:
    """The kinds of an iteration's stages, in order."""
    if job.kind != "loop":
        return OTHER_STAGES[job.kind]
    if number == 0:
        behind = SEED_STAGES.index("select") + 1
        quotas = job.recipe.get("select", {}).get("quotas")
        labels = () if quotas is None else LABEL_STAGES
        return (*SEED_STAGES[:behind], *labels, *SEED_STAGES[behind:])
    if number > 1 and not job.recipe.get("pair", {}).get("fresh", True):
        return tuple(kind for kind in LOOP_STAGES if kind != "pair")
    return LOOP_STAGES


def last_iteration(job: Job) -> int:
    """The number of the iteration that a job ends with."""
    return int(job.recipe["iterations"]) if job.kind == "loop" else 0


def plan(session: Session, job: Job, iteration: Iteration, kind: str) -> Inputs:
    """The inputs of a stage's chunks, from rows that earlier stages left."""
    if job.kind == "evaluation":
        return _plan_evaluation(session, job, kind)
    if job.kind == "review":
        return _plan_review(session, job, kind)
    recipe = Recipe.model_validate(job.recipe)
    if kind in ("register", "gate"):
        return [{}]
    if kind == "select":
        return [{"dataset": _dataset_path(session, job.dataset_id)}]
    if kind == "label":
        (selection,) = _outputs(session, job, 0, "select")
        labeller = _role(session, job, "labeller")
        return _slices(selection, [(0, selection.rows)], labeller, recipe)
    if kind == "choose":
        labelled = [a.path for a in _outputs(session, job, 0, "label") if a.rows > 0]
        return [{"labelled": labelled}] if labelled else []
    if kind == "pair":
        return _plan_pairs(session, job, iteration.number, recipe)
    if kind == "judge":
        judge = _version(session, job, iteration.number - 1)
        pairs = [a for a in _pairs(session, job, iteration.number, recipe) if a.rows > 0]
        quotas = _shares(recipe.judge.quota, [a.rows for a in pairs])
        return [
            {"pairs": a.path, "version": judge.id, "quota": quota}
            for a, quota in zip(pairs, quotas, strict=True)
        ]
    if kind == "curate":
        parts = _outputs(session, job, iteration.number, "judge")
        pairs = _pairs(session, job, iteration.number, recipe)
        paths = {"judgments": [a.path for a in parts], "pairs": [a.path for a in pairs]}
        return [paths] if parts else []
    if kind == "train":
        return _plan_training(session, job, iteration.number, recipe)
    if kind == "validate":
        return _plan_validation(session, job, iteration)
    raise ValueError(f"no such stage: {kind}")


def _plan_pairs(session: Session, job: Job, number: int, recipe: Recipe) -> Inputs:
    """Ranges of the selection: the first rows are held out, then a fresh slice per iteration.

    When the selection is used up, slices start over behind the held-out rows, and an event says so.
    """
    last = "select" if recipe.select.quotas is None else "choose"
    (selection,) = _outputs(session, job, 0, last)
    heldout = recipe.validate_.instructions
    pool = selection.rows - heldout
    if pool < 1:
        return []
    if number == 0:
        ranges = [(0, heldout)]
    else:
        size = min(recipe.pair.instructions, pool)
        start = (number - 1) * recipe.pair.instructions % pool
        if number * recipe.pair.instructions > pool:
            emit(session, job.id, "instructions.reused", {"iteration": number, "pool": pool})
        first = min(size, pool - start)
        ranges = [(heldout + start, first), (heldout, size - first)]
    return _slices(selection, ranges, _role(session, job, "generator"), recipe)


def _slices(
    selection: Artifact, ranges: list[tuple[int, int]], version_id: str, recipe: Recipe
) -> Inputs:
    """Ranges (offset, length) of the selection, cut into chunks for the generator."""
    return [
        {
            "selection": selection.path,
            "offset": offset + step,
            "limit": min(recipe.chunk_size, length - step),
            "version": version_id,
        }
        for offset, length in ranges
        for step in range(0, length, recipe.chunk_size)
    ]


def _shares(quota: int | None, rows: list[int]) -> list[int | None]:
    """A quota cut by the chunks' rows, rounded up: together they have at least the quota."""
    return [None if quota is None else -(-quota * one // sum(rows)) for one in rows]


def _plan_training(session: Session, job: Job, number: int, recipe: Recipe) -> Inputs:
    """One run, on what the objective learns from, beginning at the seed or the version before."""
    examples: list[Artifact] = []
    for one in range(1, number + 1) if recipe.train.examples == "all" else [number]:
        if recipe.train.objective == "sft_dpo":
            examples.append(_beside(session, job, one, "preferences"))
        else:
            examples += _outputs(session, job, one, "curate")
    if not any(artifact.rows for artifact in examples):
        return []
    start = 0 if recipe.train.start == "seed" else number - 1
    choose_on = [a.path for a in _outputs(session, job, 0, "pair")]
    if recipe.validate_.choose_on == "labelled":
        choose_on = [_dataset_path(session, job.labelled_dataset_id)]
    return [
        {
            "examples": [artifact.path for artifact in examples],
            "choose_on": choose_on,
            "base_version": _version(session, job, 0).id,
            "start_version": _version(session, job, start).id,
        }
    ]


def _plan_validation(session: Session, job: Job, iteration: Iteration) -> Inputs:
    """The new version, and the version it must beat if this job has not scored that one yet."""
    versions = [str(iteration.version_id)]
    latest = session.get(Alias, (job.project_id, job.model, "latest"))
    if latest is not None and latest.version_id not in versions:
        holds.version(session, latest.version_id)
        scored = select(Evaluation.id).where(
            Evaluation.version_id == latest.version_id, Evaluation.job_id == job.id
        )
        if session.scalar(scored) is None:
            versions.append(latest.version_id)
    inputs: Inputs = []
    recipe = Recipe.model_validate(job.recipe)
    choose_on = recipe.validate_.choose_on
    sets = [("heldout", a.path, a.rows) for a in _outputs(session, job, 0, "pair") if a.rows > 0]
    datasets = {f"labelled/{one}": one for one in recipe.gate.labelled}
    if job.labelled_dataset_id is not None:
        datasets = {"labelled": job.labelled_dataset_id, **datasets}
    for name, dataset_id in datasets.items():
        path = _dataset_path(session, dataset_id)
        rows = session.scalars(select(Artifact.rows).where(Artifact.path == path)).one()
        sets.append((name, path, rows))
    heldout = [path for name, path, _ in sets if name == "heldout"]
    for name in ("heldout", choose_on):
        if sum(rows for of, _, rows in sets if of == name) < 2:
            return []  # one pair chooses checkpoints and another decides promotion
    for version in versions:
        inputs.append(
            {
                "set": "heldout",
                "version": version,
                "paths": heldout,
                "second": choose_on == "heldout",
            }
        )
        for name, path, rows in (entry for entry in sets if entry[0] != "heldout"):
            for offset in range(0, rows, VALIDATE_CHUNK):
                inputs.append(
                    {
                        "set": name,
                        "version": version,
                        "paths": [path],
                        "second": choose_on == name,
                        "offset": offset,
                        "limit": VALIDATE_CHUNK,
                    }
                )
    return inputs


def _plan_evaluation(session: Session, job: Job, kind: str) -> Inputs:
    """Slices of the examples; then one chunk that has all their answers."""
    path = _dataset_path(session, job.dataset_id)
    if kind == "score":
        answers = [artifact.path for artifact in _outputs(session, job, 0, "evaluate")]
        return [{"examples": path, "answers": answers}]
    rows = session.scalars(select(Artifact.rows).where(Artifact.path == path)).one()
    examples = min(rows, job.recipe["limit"] or rows)
    return [
        {"examples": path, "offset": offset, "limit": min(EVALUATE_CHUNK, examples - offset)}
        for offset in range(0, examples, EVALUATE_CHUNK)
    ]


def _plan_review(session: Session, job: Job, kind: str) -> Inputs:
    """Slices of the pairs to judge; then one chunk that draws the items."""
    settings = ReviewSettings.model_validate(job.recipe)
    if kind == "sample":
        surveyed = select(Chunk.input).where(Chunk.job_id == job.id, Chunk.kind == "survey")
        rows = session.scalars(surveyed.limit(1)).one()["rows"]
        judged = [one.path for one in _outputs(session, job, 0, "survey")]
        return [{"judged": judged, "rows": rows}]
    source = find_source(session, session.get_one(ModelVersion, settings.version), settings.source)
    if source is None:
        return []
    size = min(source.rows, SURVEYED * settings.size)
    slices = range(0, size, SURVEY_CHUNK)
    if settings.source == TRAFFIC:
        asked = drawn_questions(session, job.model, size, settings.seed)
        return [{"questions": asked[at : at + SURVEY_CHUNK], "rows": source.rows} for at in slices]
    given = {**source.as_input(), "size": size, "limit": SURVEY_CHUNK}
    return [{**given, "offset": offset} for offset in slices]


def nothing_left(session: Session, job: Job, iteration: Iteration, kind: str) -> dict[str, Any]:
    """The Problem of a stage that has no input: the data, not the system, is at fault."""
    made = select(Stage.kind, Stage.counts).where(Stage.iteration_id == iteration.id)
    before = {row.kind: row.counts for row in session.execute(made)}
    why = "; its counts in the iteration say what was dropped and why"
    if kind == "train" and not before["curate"].get("training_examples"):
        why = _nothing_kept(job, before["judge"], before["curate"]) or why
    return {
        "title": "Nothing left to work on",
        "detail": f"iteration {iteration.number}: the stage before '{kind}' left no usable rows"
        + why,
        "code": "no_usable_rows",
        "fault": "user",
    }


def _nothing_kept(job: Job, judged: dict[str, int], curated: dict[str, int]) -> str | None:
    """Why no judgment was kept, in figures; None if the stages do not tell them."""
    if "judgments_sampled" not in judged or "inputs" not in curated:
        return None
    right = judged.get("judgments_right", 0)
    why = f": {right:,} of {judged['judgments_sampled']:,} judgments were right"
    if job.recipe["curate"]["both_orders"] or job.recipe["curate"]["agree"]:
        dropped = ("no_label", "none_right", "min_share", "other_order")
        left = curated["inputs"] - sum(curated.get(f"dropped_{one}", 0) for one in dropped)
        why += (
            f", and {left // 2:,} of {curated['inputs'] // 2:,} pairs had right ones in both orders"
        )
    return (
        f"{why}. A seed that cannot judge these prompts is to be replaced: docs/how-to/own-model.md"
    )


# ---------------------------------------------------------------- rows


def _outputs(session: Session, job: Job, number: int, kind: str) -> list[Artifact]:
    """Artifacts of a stage's chunks in order of position."""
    return list(
        session.scalars(
            select(Artifact)
            .join(Chunk, Chunk.artifact_id == Artifact.id)
            .join(Stage, Stage.id == Chunk.stage_id)
            .join(Iteration, Iteration.id == Stage.iteration_id)
            .where(Iteration.job_id == job.id, Iteration.number == number, Stage.kind == kind)
            .order_by(Chunk.position)
        )
    )


def _pairs(session: Session, job: Job, number: int, recipe: Recipe) -> list[Artifact]:
    """The pairs that an iteration works on: its own, or those of iteration 1."""
    return _outputs(session, job, number if recipe.pair.fresh else 1, "pair")


def _beside(session: Session, job: Job, number: int, kind: str) -> Artifact:
    """The side artifact of this kind that an iteration published (see Lease.path)."""
    return session.scalars(
        select(Artifact).where(
            Artifact.kind == kind,
            Artifact.path.startswith(f"jobs/{job.id}/{number}/{kind}/", autoescape=True),
        )
    ).one()


def _version(session: Session, job: Job, number: int) -> ModelVersion:
    """The version that an iteration of this job made (0: the seed)."""
    return session.scalars(
        select(ModelVersion)
        .join(Iteration, Iteration.version_id == ModelVersion.id)
        .where(Iteration.job_id == job.id, Iteration.number == number)
    ).one()


def role_versions(session: Session, job: Job) -> dict[str, str]:
    """Ids of the versions that have a role beside the judge, by role, once they are registered."""
    metrics = session.scalars(
        select(Chunk.metrics).where(Chunk.job_id == job.id, Chunk.kind == "register")
    ).one_or_none()
    return dict((metrics or {}).get("roles", {}))


def _role(session: Session, job: Job, role: str) -> str:
    """Id of the version that has this role: its own model's, or the seed."""
    return role_versions(session, job).get(role) or _version(session, job, 0).id


def _dataset_path(session: Session, dataset_id: str | None) -> str:
    return session.scalars(
        select(Artifact.path)
        .join(Dataset, Dataset.artifact_id == Artifact.id)
        .where(Dataset.id == dataset_id)
    ).one()
