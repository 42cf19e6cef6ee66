"""A version's temperature, as its validation found it (:mod:`selftaught.judging.calibration`)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from anyio import to_thread
from sqlalchemy import select

from selftaught.contracts import JudgeIn
from selftaught.database import transaction
from selftaught.database.tables import Evaluation
from selftaught.judging import JudgeTemplate

KEPT = 64
"""Versions whose calibration is kept."""
NONE_SECONDS = 60.0
"""A version without a calibration may get one: after so long it is looked for again."""


@dataclass(frozen=True)
class Calibration:
    """What the log-odds of A against B are divided by, if asked in the way of the validation."""

    temperature: float
    template_sha256: str | None

    def fits(self, question: JudgeIn, template: JudgeTemplate) -> bool:
        """Greedily in both orders with this very template: for anything else it says nothing."""
        same = self.template_sha256 == template.sha256
        return same and question.both_orders and question.votes == 1


def load(version_id: str) -> Calibration | None:
    """The calibration of a version's first validation that gave one; it never changes."""
    query = (
        select(Evaluation)
        .where(
            Evaluation.version_id == version_id,
            Evaluation.set == "heldout",
            Evaluation.metrics.has_key("calibration"),
        )
        .order_by(Evaluation.created_at, Evaluation.id)
        .limit(1)
    )
    with transaction() as session:
        found = session.scalar(query)
        if found is None:
            return None
        temperature = float(found.metrics["calibration"]["temperature"])
        return Calibration(temperature, found.template_sha256)


class Calibrations:
    """Of the versions asked for last; one look for all who ask at the same time."""

    def __init__(self) -> None:
        self._looks: OrderedDict[str, tuple[float, asyncio.Task[Calibration | None]]] = (
            OrderedDict()
        )

    async def of(self, version_id: str) -> Calibration | None:
        """As :func:`load`."""
        now = time.monotonic()
        began, look = self._looks.get(version_id, (0.0, None))
        if look is None or _stale(look, now - began):
            look = asyncio.create_task(to_thread.run_sync(load, version_id))
            self._looks[version_id] = now, look
            while len(self._looks) > KEPT:
                self._looks.popitem(last=False)
        return await asyncio.shield(look)


def _stale(look: asyncio.Task[Calibration | None], age: float) -> bool:
    if not look.done():
        return False
    return look.exception() is not None or (look.result() is None and age > NONE_SECONDS)
