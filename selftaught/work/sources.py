"""Where the pairs of a review queue come from: files that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from selftaught.database.tables import Artifact, Chunk, Dataset

HELDOUT = "heldout"
PAIRED = ("labelled", "pairs")
"""Kinds of datasets whose rows are pairs."""


@dataclass(frozen=True)
class Source:
    """Files of pairs, read one after the other. `second`: only every second row, from row 1 on."""

    paths: tuple[str, ...]
    second: bool
    rows: int

    def as_input(self) -> dict[str, Any]:
        """For a chunk."""
        return {"paths": list(self.paths), "second": self.second, "rows": self.rows}


def find_source(session: Session, version_id: str, source: str) -> Source | None:
    """The pairs that a version was validated on, or those of a dataset; None if there are none."""
    if source != HELDOUT:
        query = select(Artifact).join(Dataset, Dataset.artifact_id == Artifact.id)
        found = session.scalars(
            query.where(Dataset.id == source, Dataset.kind.in_(PAIRED))
        ).one_or_none()
        return None if found is None else Source((found.path,), False, found.rows)
    validated = session.scalars(
        select(Chunk.input)
        .where(
            Chunk.kind == "validate",
            Chunk.input["version"].astext == version_id,
            Chunk.input["set"].astext == HELDOUT,
        )
        .order_by(Chunk.created_at.desc())
        .limit(1)
    ).one_or_none()
    if validated is None:
        return None
    paths = tuple(validated["paths"])
    rows = session.scalar(select(func.sum(Artifact.rows)).where(Artifact.path.in_(paths))) or 0
    second = bool(validated["second"])
    return Source(paths, second, int(rows) // 2 if second else int(rows))
