"""Deletion of a dataset, a job or a version: rows in the caller's transaction, then files.

Each function locks the row, looks for who needs it, deletes, and returns the files that nothing
names any more; hand them to :func:`remove` when the transaction is over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from selftaught import aliases, artifacts, canaries
from selftaught.contracts import TERMINAL
from selftaught.database.tables import Artifact, Dataset, DeletedVersion, Job, ModelVersion
from selftaught.keeping.locks import REMOVING, Held, session_lock
from selftaught.settings import get_settings

log = logging.getLogger(__name__)

ENDED = sorted(state.value for state in TERMINAL)

OF_JOB = (
    "DELETE FROM outbox WHERE chunk_id IN (SELECT id FROM chunks WHERE job_id = :id)",
    "DELETE FROM chunks WHERE job_id = :id",
    "DELETE FROM stages WHERE job_id = :id",
    "DELETE FROM iterations WHERE job_id = :id",
    "DELETE FROM events WHERE job_id = :id",
    "DELETE FROM reviews WHERE item_id IN (SELECT id FROM review_items WHERE job_id = :id)",
    "DELETE FROM review_items WHERE job_id = :id",
    "DELETE FROM engine_demands WHERE job_id = :id",
    # A version keeps what gates found of it; a benchmark's result is the evaluation itself.
    "DELETE FROM evaluations WHERE job_id IN "
    "(SELECT id FROM jobs WHERE id = :id AND kind = 'evaluation')",
    "UPDATE model_versions SET job_id = NULL WHERE job_id = :id",
    "UPDATE promotions SET job_id = NULL WHERE job_id = :id",
    "DELETE FROM jobs WHERE id = :id",
)
"""Every foreign key on jobs, and on what goes with them, is in one of these."""

OF_VERSION = (
    "DELETE FROM reviews WHERE item_id IN (SELECT id FROM review_items WHERE version_id = :id)",
    "DELETE FROM review_items WHERE version_id = :id",
    "UPDATE review_items SET against_id = NULL WHERE against_id = :id",
    "DELETE FROM evaluations WHERE version_id = :id",
    "DELETE FROM promotions WHERE version_id = :id",
    "UPDATE promotions SET incumbent_id = NULL WHERE incumbent_id = :id",
    "DELETE FROM canary_verdicts WHERE canary_id IN "
    "(SELECT id FROM canaries WHERE version_id = :id OR base_id = :id)",
    "DELETE FROM canaries WHERE version_id = :id OR base_id = :id",
    "DELETE FROM verdicts WHERE version_id = :id",
    "DELETE FROM alias_history WHERE version_id = :id",
    "DELETE FROM engine_adapters WHERE version_id = :id",
    "DELETE FROM engine_demands WHERE version_id = :id",
    "UPDATE iterations SET version_id = NULL WHERE version_id = :id",
    "DELETE FROM model_versions WHERE id = :id",
)
"""Every foreign key on model_versions is in one of these, or in VERSION_USERS."""

VERSION_USERS = {
    "an alias names it": "SELECT 1 FROM aliases WHERE version_id = :id",
    "a canary tries it, or is compared with it": (
        "SELECT 1 FROM canaries WHERE ended_at IS NULL AND (version_id = :id OR base_id = :id)"
    ),
    "another version was trained from it": "SELECT 1 FROM model_versions WHERE parent_id = :id",
    "a running job needs it": """
        SELECT 1 FROM jobs WHERE state <> ALL(:ended) AND (
            jsonb_path_exists(
                recipe, '$.** ? (@ == $id)', jsonb_build_object('id', CAST(:id AS text)))
            OR EXISTS (SELECT 1 FROM iterations i WHERE i.job_id = jobs.id AND i.version_id = :id)
            OR EXISTS (SELECT 1 FROM chunks c WHERE c.job_id = jobs.id AND jsonb_path_exists(
                jsonb_build_array(c.input, c.metrics -> 'roles'),
                '$.** ? (@ == $id)', jsonb_build_object('id', CAST(:id AS text)))))
    """,
}

DATASET_USERS = """
    SELECT 1 FROM jobs WHERE state <> ALL(:ended) AND (
        dataset_id = :id OR labelled_dataset_id = :id
        OR jsonb_path_exists(
            recipe, '$.** ? (@ == $id)', jsonb_build_object('id', CAST(:id AS text))))
"""

DATA_USERS = """
    SELECT 1 FROM chunks JOIN jobs ON jobs.id = chunks.job_id
    WHERE jobs.state <> ALL(:ended) AND jobs.id <> :id
      AND jsonb_path_exists(chunks.input, '$.** ? (@ starts with $of)',
                            jsonb_build_object('of', 'jobs/' || CAST(:id AS text) || '/'))
"""


class InUse(Exception):
    """Something still needs it; the message says what."""


class NotEnded(Exception):
    """The job has not ended."""


def dataset(session: Session, dataset_id: str) -> list[Path]:
    """Delete a dataset's rows and data; where a job names it, when and its hash stay.

    Raises KeyError (none such), InUse.
    """
    row = session.get(Dataset, dataset_id, with_for_update=True, populate_existing=True)
    if row is None or row.artifact_id is None:
        raise KeyError(dataset_id)
    if _found(session, DATASET_USERS, dataset_id):
        raise InUse(f"dataset {dataset_id!r}: a running job needs it")
    artifact = session.get_one(Artifact, row.artifact_id)
    named = text("SELECT 1 FROM jobs WHERE dataset_id = :id OR labelled_dataset_id = :id LIMIT 1")
    if session.scalar(named, {"id": dataset_id}):
        row.deleted_at = session.scalar(text("SELECT clock_timestamp()"))
        row.artifact_id, row.sha256, row.name = None, artifact.sha256, row.id
    else:
        session.delete(row)
    session.flush()
    session.delete(artifact)
    session.flush()
    return [get_settings().artifacts_dir / artifact.path]


def job(session: Session, job_id: str) -> list[Path]:
    """Delete an ended job with all its rows and data; versions that it made stay.

    Raises KeyError (none such), NotEnded, InUse.
    """
    row = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise KeyError(job_id)
    gone = job_data(session, row)
    for statement in OF_JOB:
        session.execute(text(statement), {"id": job_id})
    session.expire_all()
    return gone


def job_data(session: Session, row: Job) -> list[Path]:
    """Delete the rows of the files that an ended job made or was given; its row is locked.

    Raises NotEnded, InUse.
    """
    if row.state not in TERMINAL:
        raise NotEnded(f"job {row.id!r} is {row.state}")
    if _found(session, DATA_USERS, row.id):
        raise InUse(f"job {row.id!r}: a running job reads its data")
    session.execute(text("UPDATE chunks SET artifact_id = NULL WHERE job_id = :id"), {"id": row.id})
    session.execute(
        text(
            "DELETE FROM artifacts WHERE starts_with(path, 'jobs/' || :id || '/')"
            " OR starts_with(path, 'reviews/' || :id || '/')"
            " OR path = 'batches/' || :id || '.jsonl'"
        ),
        {"id": row.id},
    )
    row.data_removed_at = session.scalar(text("SELECT clock_timestamp()"))
    session.flush()
    folder = get_settings().artifacts_dir
    batches = [folder / "batches" / f"{row.id}.jsonl"] if row.kind == "batch" else []
    return [folder / "jobs" / row.id, folder / "reviews" / row.id, *batches]


def version(session: Session, model: str, number: int) -> list[Path]:
    """Delete a version: its weights and all rows about it. Its number stays taken.

    Raises UnknownModel, InUse.
    """
    # Aliases first, as who moves one does: then nothing comes to name it unseen.
    named = text("SELECT 1 FROM aliases WHERE model = :model ORDER BY alias FOR UPDATE")
    session.execute(named, {"model": model})
    find = text(
        "SELECT id FROM model_versions WHERE model = :model AND number = :number FOR UPDATE"
    )
    version_id = session.scalar(find, {"model": model, "number": number})
    if version_id is None:
        raise aliases.UnknownModel(f"{model}:{number}", aliases.known_refs(session, model))
    for why, query in VERSION_USERS.items():
        if _found(session, query, version_id):
            raise InUse(f"version {model}:{number}: {why}")
    row = session.get_one(ModelVersion, version_id)
    session.add(DeletedVersion(id=row.id, model=row.model, number=row.number, sha256=row.sha256))
    for statement in OF_VERSION:
        session.execute(text(statement), {"id": version_id})
    canaries.tell(session, version_id)
    trained = bool(row.path) and not Path(row.path).is_absolute()
    session.expunge(row)
    return [get_settings().versions_dir / row.path] if trained else []


def remove(gone: Sequence[Path]) -> None:
    """Remove files that nothing names, here and in the store; call it outside any transaction.

    While a backup is being made they stay for the next collection: it may be copying them.
    """
    if not gone:
        return
    try:
        with session_lock(REMOVING, shared=True):
            remove_under_lock(gone)
    except Held as held:
        log.info("%s: %d files are left to the next collection", held, len(gone))


def remove_under_lock(gone: Sequence[Path]) -> None:
    """:func:`remove`, for who holds the lock."""
    for path in gone:
        artifacts.remove(path.resolve())


def _found(session: Session, query: str, key: str) -> bool:
    return session.scalar(text(query), {"id": key, "ended": ENDED}) is not None
