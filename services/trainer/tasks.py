"""The trainer's work: register the seed as version 0 of the job, then train one version a time.

celery -A services.trainer.tasks worker -Q trainer --pool solo
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

import selftaught
from selftaught import aliases, artifacts, devices, engines, tenancy, usage
from selftaught.artifacts import hash_folder, resolve, sync_folder
from selftaught.contracts import LOCAL_INFERENCE, TERMINAL, Recipe, State
from selftaught.database import transaction
from selftaught.database.tables import (
    Artifact,
    Chunk,
    Dataset,
    DeletedVersion,
    Iteration,
    Job,
    ModelVersion,
    Stage,
)
from selftaught.hashing import canonical_sha256, stable_seed
from selftaught.ids import new_id
from selftaught.registry import base_model_path, judge_template
from selftaught.settings import get_settings
from selftaught.versions import version_folder
from selftaught.work.events import emit
from selftaught.work.kernel import JobFailure, Lease, LeaseLost, Result
from selftaught.work.planning import role_versions
from selftaught.work.worker import Handler, make_app
from services.trainer.base import (
    QuantizationUnavailable,
    check_base_model,
    check_quantization,
    origin,
    write_probe_adapter,
)
from services.trainer.child import STORAGE_FULL, Spec
from services.trainer.process import ChildFailed, run_child

USER_FAULTS = {"model_load_failed", "out_of_memory", "nan_loss", "quantization_unavailable"}


def register(lease: Lease) -> Result:
    """Check and hash the base model, and the models that have a role beside it."""
    try:
        check_quantization(lease.recipe.train)
    except QuantizationUnavailable as error:
        raise JobFailure(
            "quantization_unavailable", "Training would fail", str(error), "user"
        ) from error
    found = {
        **_check(lease.recipe.base_model, lease.recipe.inference),
        "template": _template(lease),
    }
    roles = {
        name: _check(role.base_model, role.inference) for name, role in lease.recipe.roles.items()
    }
    engine = _engine(lease.recipe, found) if lease.recipe.inference == "vllm" else None
    return Result(extra={**found, "roles": roles, "engine": engine})


def _engine(recipe: Recipe, base: dict[str, Any]) -> dict[str, Any]:
    """What a server needs to know to serve the base and what is trained from it (engines.Spec)."""
    engine = engines.lineage(recipe)
    if recipe.train.method == "lora":
        settings = recipe.train.lora
        kind = canonical_sha256([base["path"], base["sha256"], settings.model_dump()])
        engine["probe"] = f"probe-{kind[:16]}"
        out = get_settings().versions_dir / engine["probe"]
        if not out.exists():
            write_probe_adapter(Path(base["path"]), settings, 0, out)
        artifacts.share(out.resolve())
    return engine


def _check(base_model: str, inference: str) -> dict[str, Any]:
    """Where a base model lies, its hash and origin; of one that only an endpoint knows, its name's
    hash."""
    if inference not in LOCAL_INFERENCE:
        sha256 = canonical_sha256([inference, base_model])
        return {"path": "", "sha256": sha256, "origin": None}
    folder = base_model_path(base_model)
    check_base_model(folder)
    return {"path": str(folder), "sha256": hash_folder(folder), "origin": origin(folder)}


def apply_register(session: Session, lease: Lease, result: Result) -> dict[str, Any]:
    """The seed's version, shared by the jobs that use these weights, from there, in this way; and
    one of each other model, under its own name."""
    job = session.get_one(Job, lease.job_id)
    common = _lineage(session, job, lease, result)
    lineage = {
        **common,
        "inference": lease.recipe.inference,
        "base_model": result.extra["origin"],
    }
    if result.extra["engine"]:
        lineage["engine"] = result.extra["engine"]
    version = _base_version(session, job, job.model, result.extra, lineage)
    session.get_one(Iteration, lease.iteration_id).version_id = version.id
    if job.kind == "registration" and aliases.lock(session, job.model, aliases.LATEST) is None:
        aliases.move(session, job.model, aliases.LATEST, version, reason=f"registered by {job.id}")
    roles = {}
    for name, role in lease.recipe.roles.items():
        own = {
            **common,
            "inference": role.inference,
            "base_model": result.extra["roles"][name]["origin"],
            "recipe": {**common["recipe"], "base_model": role.base_model},
        }
        if role.inference == "vllm":
            own["engine"] = {"settings": role.engine.model_dump(), "max_lora_rank": 0}
        model = role.base_model.lower()
        found = _base_version(session, job, model, result.extra["roles"][name], own)
        roles[name] = found.id
    return {"version": version.ref, "sha256": version.sha256, "roles": roles}


def _base_version(
    session: Session, job: Job, model: str, found: dict[str, Any], lineage: dict[str, Any]
) -> ModelVersion:
    """The version of a base model that is used in this way, or a new one."""
    _lock_numbers(session, model)
    engine = lineage.get("engine")
    version = session.scalar(
        select(ModelVersion)
        .where(
            ModelVersion.model == model,
            ModelVersion.sha256 == found["sha256"],
            ModelVersion.path == found["path"],
            ModelVersion.lineage["inference"].astext == lineage["inference"],
            ModelVersion.parent_id.is_(None),
            ModelVersion.lineage["template"] == lineage["template"],
            ModelVersion.lineage["engine"] == engine if engine else true(),
        )
        .with_for_update(read=True, key_share=True)  # that nobody deletes it meanwhile
    )
    if version is not None:
        return version
    return _add_version(session, job, model, 0, {**found, "lineage": lineage})


def train(lease: Lease) -> Result:
    """Fine-tune in a child process and move its folder into place.

    A training that was stopped or killed is gone on with by the next attempt: its unfinished run
    is in the folder of the attempt before, which is taken over by a rename, so that no two
    attempts ever write to the same place.
    """
    with transaction() as session:
        base = session.get_one(ModelVersion, lease.input["base_version"])
        start = session.get_one(ModelVersion, lease.input["start_version"])
    lease.confirm()  # one that was frozen must not take over what another works on now
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
        project=lease.project,
        output_dir=work / "model",
        work_dir=work / "run",
        settings=lease.recipe.train,
        max_tokens=lease.recipe.validate_.max_tokens,
        seed=stable_seed(lease.recipe.seed, lease.iteration),
    )
    engines.unwant(lease.job_id)
    try:
        count = lease.recipe.train.devices
        holder = f"{lease.chunk_id}.{lease.token}"
        with (
            devices.held(get_settings().node, count, holder, lease.check) as names,
            usage.Held(lease.project, count) as held,
        ):
            made = run_child(spec, work, lease, names)
        lease.confirm()
        sha256 = hash_folder(work / "model")
        (work / "model").rename(versions / version_id)
        sync_folder(versions)
        artifacts.share((versions / version_id).resolve())
    except ChildFailed as error:
        if error.code == STORAGE_FULL:  # the next attempt goes on with the run
            raise OSError(errno.ENOSPC, error.message) from error
        shutil.rmtree(work)
        fault = "user" if error.code in USER_FAULTS else "system"
        raise JobFailure(error.code, "Training failed", error.message, fault) from error
    except devices.TooFewDevices as error:
        shutil.rmtree(work)
        raise JobFailure("too_few_devices", "Training failed", str(error)) from error
    except LeaseLost:
        _sweep(versions)  # if the job was cancelled, nobody will go on with the run
        raise
    shutil.rmtree(work)
    del made["losses"]  # of every step; the curve has them in bounded form
    return Result(
        counts={"train_tokens": made["train_tokens"], "steps": made["steps"]},
        metrics={**made, "device_seconds": round(held.seconds, 3)},
        gpu_seconds=held.seconds,
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
        with tenancy.inside(None), transaction() as session:  # whoever's it is
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
        artifacts.remove((get_settings().versions_dir / result.extra["id"]).resolve())


def apply_train(session: Session, lease: Lease, result: Result) -> dict[str, Any]:
    """The new version with all that made it."""
    job = session.get_one(Job, lease.job_id)
    _lock_numbers(session, job.model)
    base = session.get_one(ModelVersion, lease.input["base_version"])
    lineage = {
        **_lineage(session, job, lease, result),
        # A foreign endpoint knows nothing of them: transformers runs them.
        "inference": "vllm" if lease.recipe.inference == "vllm" else "local",
        "base_model": base.lineage.get("base_model"),
        "trained_from": session.get_one(ModelVersion, result.extra["base"]).ref,
        "train": result.metrics,
    }
    if "engine" in base.lineage:
        lineage["engine"] = base.lineage["engine"]
    made = {**result.extra, "lineage": lineage}
    version = _add_version(session, job, job.model, lease.iteration, made)
    session.get_one(Iteration, lease.iteration_id).version_id = version.id
    emit(session, job.id, "version.published", {"version": version.ref, "sha256": version.sha256})
    return {"version": version.ref}


def _lock_numbers(session: Session, model: str) -> None:
    """Version numbers of one model are handed out one transaction at a time."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"versions:{model}"))))


def _add_version(
    session: Session, job: Job, model: str, iteration: int, made: dict[str, Any]
) -> ModelVersion:
    """`made`: path, sha256, lineage; of a trained version also its id and base (a version's id)."""
    last = max(
        (
            number
            for table in (ModelVersion, DeletedVersion)  # a number is given once
            for number in session.scalars(
                select(func.max(table.number)).where(table.model == model)
            )
            if number is not None
        ),
        default=None,
    )
    version = ModelVersion(
        id=made.get("id") or new_id("ver"),
        model=model,
        number=0 if last is None else last + 1,
        job_id=job.id,
        iteration_number=iteration,
        parent_id=made.get("base"),
        path=made["path"],
        sha256=made["sha256"],
        lineage=made["lineage"],
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
        "roles": _roles(session, job),
        "counts": {f"{number}.{kind}": found for number, kind, found in counts},
        "human_labels_in_training": False,
        "human_labels_chose_checkpoint": lease.kind == "train"
        and lease.recipe.validate_.choose_on == "labelled",
        "reference_answers_in_training": lease.recipe.pair.construction == "verified",
    }


def _roles(session: Session, job: Job) -> dict[str, dict[str, str]]:
    """The versions beside the judge: role -> what it was."""
    return {
        role: {"version": version.ref, "sha256": version.sha256}
        for role, version_id in role_versions(session, job).items()
        if (version := session.get_one(ModelVersion, version_id))
    }


app = make_app(
    "trainer",
    {
        "register": Handler(register, apply_register),
        "train": Handler(train, apply_train, undo_train),
    },
)
