"""Where the pairs of a review queue come from: files that are there already, or the verdict log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from selftaught.database.tables import Artifact, Chunk, Dataset, LoggedVerdict, ModelVersion
from selftaught.keeping import holds

HELDOUT, TRAFFIC = "heldout", "traffic"
T = TypeVar("T")
PAIRED = ("labelled", "pairs")
"""Kinds of datasets whose rows are pairs."""


@dataclass(frozen=True)
class Source:
    """Files of pairs, read one after the other. `second`: only every second row, from row 1 on.

    Traffic has no files: its rows are the questions of :func:`drawn_questions`.
    """

    paths: tuple[str, ...]
    second: bool
    rows: int

    def as_input(self) -> dict[str, Any]:
        """For a chunk."""
        return {"paths": list(self.paths), "second": self.second, "rows": self.rows}


def find_source(session: Session, version: ModelVersion, source: str) -> Source | None:
    """What a queue of this version is drawn from; None if there is no such thing.

    The pairs that it was validated on, what its model was asked (any version of it, where texts
    were logged), or a dataset of pairs, by id.
    """
    if source == TRAFFIC:
        asked = func.count(LoggedVerdict.content_sha256.distinct())
        return Source((), False, session.scalar(_logged(version.model, asked)) or 0)
    if source != HELDOUT:
        query = select(Artifact).join(Dataset, Dataset.artifact_id == Artifact.id)
        found = session.scalars(
            query.where(Dataset.id == source, Dataset.kind.in_(PAIRED))
        ).one_or_none()
        return None if found is None else Source((found.path,), False, found.rows)
    validated = session.execute(
        select(Chunk.input, Chunk.job_id)
        .where(
            Chunk.kind == "validate",
            Chunk.input["version"].astext == version.id,
            Chunk.input["set"].astext == HELDOUT,
        )
        .order_by(Chunk.created_at.desc())
        .limit(1)
    ).one_or_none()
    if validated is None:
        return None
    given, job_id = validated
    holds.job(session, job_id)  # that its files stay, if they are still there
    paths = tuple(given["paths"])
    rows = session.scalar(select(func.sum(Artifact.rows)).where(Artifact.path.in_(paths))) or 0
    second = bool(given["second"])
    return Source(paths, second, int(rows) // 2 if second else int(rows))


def drawn_questions(session: Session, model: str, size: int, seed: int) -> list[str]:
    """Ids of logged verdicts with texts, of `size` different questions drawn by the seed."""
    question = LoggedVerdict.content_sha256
    query = _logged(model, func.min(LoggedVerdict.id)).group_by(question)
    return list(session.scalars(query.order_by(func.md5(question.concat(str(seed)))).limit(size)))


def _logged(model: str, what: ColumnElement[T]) -> Select[T]:
    return (
        select(what)
        .join(ModelVersion, ModelVersion.id == LoggedVerdict.version_id)
        .where(ModelVersion.model == model, LoggedVerdict.texts.is_not(None))
    )
