"""Datasets, versions and jobs that a new row will name: held until the transaction ends.

Who deletes one locks its row first and looks for names after that. So of a deletion and a name that
come at the same time, the later one sees what the earlier did.
"""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy.orm import Session

from selftaught.database.tables import Base, Dataset, Job, ModelVersion

Row = TypeVar("Row", bound=Base)


def dataset(session: Session, dataset_id: str) -> Dataset | None:
    """The dataset, held; None if there is none, or it was deleted."""
    row = _held(session, Dataset, dataset_id)
    return row if row is not None and row.deleted_at is None else None


def version(session: Session, version_id: str) -> ModelVersion | None:
    """The version, held; None if there is none."""
    return _held(session, ModelVersion, version_id)


def job(session: Session, job_id: str) -> Job | None:
    """The job, held; None if there is none."""
    return _held(session, Job, job_id)


def _held(session: Session, table: type[Row], key: str) -> Row | None:
    shared = {"read": True, "key_share": True}
    return session.get(table, key, with_for_update=shared, populate_existing=True)
