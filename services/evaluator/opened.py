"""The models that this evaluator holds open, and the news of those that it soon needs.

Postgres tells all evaluators when an alias or a canary names a version (selftaught.canaries.tell).
They open it in the background, so that no call long after the move is the first that wants it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import psycopg
from sqlalchemy import make_url, select

from selftaught.canaries import CHANNEL
from selftaught.database import transaction
from selftaught.database.tables import Alias, Canary, ModelVersion
from selftaught.inference import Engine
from selftaught.inference.factory import KEPT, forget_engine
from services.evaluator.askers import Asker

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
ALIVE_SECONDS = 30.0
"""So often the connection that listens is asked whether it still lives."""


class Opened:
    """The models asked last, up to KEPT. `load` opens one."""

    def __init__(self, load: Callable[[ModelVersion], Awaitable[tuple[Engine, Asker]]]) -> None:
        self.named: frozenset[str] = frozenset()
        """Ids of versions that aliases and canaries name: they make room last."""
        self._load = load
        self._models: OrderedDict[str, asyncio.Task[tuple[Engine, Asker]]] = OrderedDict()

    async def get(self, version: ModelVersion) -> Asker:
        """Its model; all who come while it loads wait for the one load. Raises what `load` does."""
        model = self._models.get(version.id)
        if model is None:
            while len(self._models) >= KEPT:
                self._make_room()
            model = self._models[version.id] = asyncio.ensure_future(self._load(version))
        self._models.move_to_end(version.id)
        try:
            _, ready = await asyncio.shield(model)
        except Exception:
            if self._models.get(version.id) is model:
                del self._models[version.id]  # the next call tries again
            raise
        return ready

    async def close(self) -> None:
        """Give connections back."""
        for model in self._models.values():
            if model.done() and model.exception() is None:
                await model.result()[1].close()

    def _make_room(self) -> None:
        """The one asked longest ago goes; of those that no alias names, if there is one."""
        others = (one for one in self._models if one not in self.named)
        oldest = self._models.pop(next(others, next(iter(self._models))))
        if oldest.done() and oldest.exception() is None:
            forget_engine(oldest.result()[0])


def named_versions() -> list[ModelVersion]:
    """Versions that aliases and living canaries name, newest first."""
    with transaction() as session:
        named = select(Alias.version_id).union(
            select(Canary.version_id).where(Canary.ended_at.is_(None))
        )
        query = select(ModelVersion).where(ModelVersion.id.in_(named))
        return list(session.scalars(query.order_by(ModelVersion.created_at.desc())))


async def news(url: str) -> AsyncIterator[str | None]:
    """The id of each version that comes to be named, from Postgres at `url` (SQLAlchemy's).

    None: the connection is new, and what was told before it is not known. Ends never.
    """
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(
                plain, autocommit=True, application_name="selftaught-news"
            )
            async with connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield None
                while True:
                    async with aclosing(connection.notifies(timeout=ALIVE_SECONDS)) as told:
                        async for notice in told:
                            yield notice.payload
                    await connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            logger.warning("no news of versions: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
