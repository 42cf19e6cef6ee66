"""What a job that is tried again would need, and is no more: datasets, versions, files."""

from __future__ import annotations

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from selftaught.contracts import State
from selftaught.database.tables import Artifact, Iteration, Job, Stage
from selftaught.keeping import holds

_NAMED = text(
    r"""
    WITH given AS (
        SELECT recipe AS value FROM jobs WHERE id = :id
        UNION ALL SELECT jsonb_build_array(input, metrics -> 'roles') FROM chunks
        WHERE job_id = :id AND (kind = 'register' OR state IN ('failed', 'cancelled'))
    )
    SELECT DISTINCT found #>> '{}' FROM given, jsonb_path_query(value,
        '$.** ? (@ like_regex "^(ver_[0-9a-z]+|(jobs|reviews|datasets|batches)/.+[.]jsonl)$")'
    ) AS found
    """
)
"""Versions and files that its settings name, and the chunks that it has yet to do."""


def lacking(session: Session, job: Job) -> str | None:
    """The first thing that a failed job would miss; None if all is there.

    The job's row is locked. What is there is held until the transaction ends, as by who names it
    anew (see holds).
    """
    gate = job.recipe.get("gate", {}).get("labelled", [])
    datasets = {job.dataset_id, job.labelled_dataset_id, *gate} - {None}
    for dataset_id in sorted(datasets):
        if holds.dataset(session, dataset_id) is None:
            return f"dataset {dataset_id!r}"
    names = set(session.scalars(_NAMED, {"id": job.id}))
    paths = {name for name in names if "/" in name}
    made = select(Iteration.version_id, Stage.kind).join(Stage, Stage.iteration_id == Iteration.id)
    making = (Stage.kind.in_(("register", "train")), Stage.state == State.SUCCEEDED)
    for version_id, kind in session.execute(made.where(Iteration.job_id == job.id, *making)):
        if version_id is None:
            return f"what its stage {kind!r} made"
        names.add(version_id)
    for version_id in sorted(names - paths):
        if holds.version(session, version_id) is None:
            return f"version {version_id!r}"
    there = set(session.scalars(select(Artifact.path).where(Artifact.path.in_(paths))))
    return f"file {min(paths - there)!r}" if paths - there else None
