"""The trainer's work: register the seed as version 0 of the job, then train one version a time.

celery -A services.trainer.tasks worker -Q trainer --pool solo
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

import selftaught
from selftaught import aliases
from selftaught.artifacts import hash_folder, resolve, sync_folder
from selftaught.contracts import TERMINAL, State
from selftaught.database import transaction
from selftaught.database.tables import Artifact, Chunk, Dataset, Iteration, Job, ModelVersion, Stage
from selftaught.hashing import stable_seed
from selftaught.ids import new_id
from selftaught.registry import base_model_path, judge_template
from selftaught.settings import get_settings
from selftaught.versions import version_folder
from selftaught.work.events import emit
from selftaught.work.kernel import JobFailure, Lease, LeaseLost, Result
from selftaught.work.worker import Handler, make_app
from services.trainer.base import check_base_model
from services.trainer.child import Spec
from services.trainer.process import ChildFailed, run_child

USER_FAULTS = {"model_load_failed", "out_of_memory", "nan_loss"}


def register(lease: Lease) -> Result:
    """Check and hash the base model."""
    folder = base_model_path(lease.recipe.base_model)
    check_base_model(folder)
    found = {"path": str(folder), "sha256": hash_folder(folder), "template": _template(lease)}
    return Result(extra=found)


def apply_register(session: Session, lease: Lease, result: Result) -> dict[str, Any]:
    """The seed's version, shared by the jobs that use these weights, from there, in this way."""
    job = session.get_one(Job, lease.job_id)
    _lock_numbers(session, job.model)
    lineage = {**_lineage(session, job, lease, result), "inference": lease.recipe.inference}
    version = session.scalar(
        select(ModelVersion).where(
            ModelVersion.model == job.model,
            ModelVersion.sha256 == result.extra["sha256"],
            ModelVersion.path == result.extra["path"],
            ModelVersion.lineage["inference"].astext == lease.recipe.inference,
            ModelVersion.parent_id.is_(None),
            ModelVersion.lineage["template"] == lineage["template"],
        )
    )
    if version is None:
        version = _add_version(session, job, lease, result, lineage)
    session.get_one(Iteration, lease.iteration_id).version_id = version.id
    if job.kind == "registration" and aliases.lock(session, job.model, aliases.LATEST) is None:
        aliases.move(session, job.model, aliases.LATEST, version, reason=f"registered by {job.id}")
    return {"version": version.ref, "sha256": version.sha256}


def train(lease: Lease) -> Result:
    """Fine-tune in a child process and move its folder into place.

    A training that was stopped or killed is gone on with by the next attempt: its unfinished run
    is in the folder of the attempt before, which is taken over by a rename, so that no two
    attempts ever write to the same place.
    """
    with transaction() as session:
        base = session.get_one(ModelVersion, lease.input["base_version"])
        start = session.get_one(ModelVersion, lease.input["start_version"])
    version_id = new_id("ver")
    versions = get_settings().versions_dir
    work = versions / f".{lease.chunk_id}.{lease.token}"
    work.mkdir(parents=True)
    _take_over(versions, lease, work)
    _sweep(versions)
    spec = Spec(
        base_model=version_folder(base),
        start=None if start.id == base.id else version_folder(start),
        examples_paths=[resolve(path) for path in lease.input["examples"]],
        choose_on_paths=[resolve(path) for path in lease.input["choose_on"]],
        template=lease.recipe.judge.template,
        output_dir=work / "model",
        work_dir=work / "run",
        settings=lease.recipe.train,
        max_tokens=lease.recipe.validate_.max_tokens,
        seed=stable_seed(lease.recipe.seed, lease.iteration),
    )
    try:
        made = run_child(spec, work, lease)
        sha256 = hash_folder(work / "model")
        (work / "model").rename(versions / version_id)
        sync_folder(versions)
    except ChildFailed as error:
        shutil.rmtree(work)
        fault = "user" if error.code in USER_FAULTS else "system"
        raise JobFailure(error.code, "Training failed", error.message, fault) from error
    except LeaseLost:
        _sweep(versions)  # if the job was cancelled, nobody will go on with the run
        raise
    shutil.rmtree(work)
    return Result(
        counts={"train_tokens": made["train_tokens"], "steps": made["steps"]},
        metrics=made,
        extra={
            "path": version_id,
            "sha256": sha256,
            "base": start.id,
            "id": version_id,
            "template": _template(lease),
        },
    )


def _template(lease: Lease) -> dict[str, str]:
    template = judge_template(lease.recipe.judge.template)
    return {"name": template.name, "sha256": template.sha256}


def _take_over(versions: Path, lease: Lease, work: Path) -> None:
    """Move the newest unfinished run of this chunk's earlier attempts to `work`/run."""
    earlier = [folder for folder in versions.glob(f".{lease.chunk_id}.*") if folder != work]
    saved = [state for folder in earlier if (state := folder / "run" / "state.pt").is_file()]
    if saved:
        newest = max(saved, key=lambda state: state.stat().st_mtime)
        newest.parent.rename(work / "run")
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(versions: Path) -> None:
    """Remove the unfinished runs of chunks that no attempt will go on with."""
    for folder in versions.glob(".*.*"):
        chunk_id = folder.name[1:].rpartition(".")[0]
        with transaction() as session:
            open_chunk = session.scalar(
                select(Chunk.id)
                .join(Job, Job.id == Chunk.job_id)
                .where(
                    Chunk.id == chunk_id,
                    Chunk.state.not_in(TERMINAL),
                    Job.state.not_in([*TERMINAL, State.CANCELLING]),
                )
            )
        if open_chunk is None:
            shutil.rmtree(folder, ignore_errors=True)


def undo_train(result: Result) -> None:
    """Remove the weights of a version that was not recorded."""
    with transaction() as session:
        recorded = session.get(ModelVersion, result.extra["id"]) is not None
    if not recorded:
        shutil.rmtree(get_settings().versions_dir / result.extra["id"])


def apply_train(session: Session, lease: Lease, result: Result) -> dict[str, Any]:
    """The new version with all that made it."""
    job = session.get_one(Job, lease.job_id)
    _lock_numbers(session, job.model)
    lineage = {
        **_lineage(session, job, lease, result),
        # Trained versions are run by transformers, wherever the seed is served.
        "inference": "local",
        "trained_from": session.get_one(ModelVersion, result.extra["base"]).ref,
        "train": result.metrics,
    }
    version = _add_version(session, job, lease, result, lineage)
    session.get_one(Iteration, lease.iteration_id).version_id = version.id
    emit(session, job.id, "version.published", {"version": version.ref, "sha256": version.sha256})
    return {"version": version.ref}


def _lock_numbers(session: Session, model: str) -> None:
    """Version numbers of one model are handed out one transaction at a time."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"versions:{model}"))))


def _add_version(
    session: Session, job: Job, lease: Lease, result: Result, lineage: dict[str, Any]
) -> ModelVersion:
    last = session.scalar(
        select(func.max(ModelVersion.number)).where(ModelVersion.model == job.model)
    )
    version = ModelVersion(
        id=result.extra.get("id") or new_id("ver"),
        model=job.model,
        number=0 if last is None else last + 1,
        job_id=job.id,
        iteration_number=lease.iteration,
        parent_id=result.extra.get("base"),
        path=result.extra["path"],
        sha256=result.extra["sha256"],
        lineage=lineage,
    )
    session.add(version)
    session.flush()
    return version


def _lineage(session: Session, job: Job, lease: Lease, result: Result) -> dict[str, Any]:
    """Rule 2 of docs/architecture.md: what one would need to make this version again."""
    numbers = {0, lease.iteration} | (set() if lease.recipe.pair.fresh else {1})
    if lease.recipe.train.examples == "all":
        numbers |= set(range(lease.iteration))
    counts = session.execute(
        select(Iteration.number, Stage.kind, Stage.counts)
        .join(Stage, Stage.iteration_id == Iteration.id)
        .where(Iteration.job_id == job.id, Iteration.number.in_(numbers))
        .order_by(Iteration.number, Stage.position)
    ).all()
    dataset = session.scalars(
        select(Artifact.sha256)
        .join(Dataset, Dataset.artifact_id == Artifact.id)
        .where(Dataset.id == job.dataset_id)
    ).one_or_none()  # none: a base model was registered
    return {
        "dataset": {"id": job.dataset_id, "sha256": dataset} if dataset else None,
        "template": result.extra["template"],
        "judge_max_tokens": lease.recipe.validate_.max_tokens,
        "judge_sampling": lease.recipe.judge.sampling.model_dump(),
        "recipe": job.recipe,
        "seed": lease.recipe.seed,
        "code_version": selftaught.__version__,
        "counts": {f"{number}.{kind}": found for number, kind, found in counts},
        "human_labels_in_training": False,
        "human_labels_chose_checkpoint": lease.kind == "train"
        and lease.recipe.validate_.choose_on == "labelled",
        "reference_answers_in_training": lease.recipe.pair.construction == "verified",
    }


app = make_app(
    "trainer",
    {
        "register": Handler(register, apply_register),
        "train": Handler(train, apply_train, undo_train),
    },
)
