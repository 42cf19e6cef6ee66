"""POST /judge without HTTP: which version answers, and how thousands of calls share its engine.

The version is looked up on every call, so a moved alias counts at once, in every replica. Looks and
questions that are equal and in flight together are one. Weights are loaded once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence

import orjson
from anyio import to_thread
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError

from selftaught.contracts import JudgeIn, JudgeOut, Latency, Ruling, SamplingSettings
from selftaught.database import transaction
from selftaught.database.tables import Alias, ModelVersion
from selftaught.inference import Completion, Engine, InferenceError, Request
from selftaught.inference.factory import KEPT, forget_engine
from selftaught.judging import JudgeTemplate
from selftaught.registry import judge_template
from selftaught.settings import get_settings
from selftaught.store import StoreError
from selftaught.versions import open_version
from services.evaluator.askers import Answered, Asker, asker
from services.evaluator.lookup import Lookup
from services.evaluator.ruling import requests_of, ruling, sampling_of
from services.evaluator.sharing import Fresh, InFlight

logger = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that a caller waits for a server to be started."""
VERSIONS = 64
"""Rows of versions that are kept; a row never changes."""


class Busy(Exception):
    """As many calls as this replica takes are being answered."""


class DeadlineExceeded(Exception):
    """The call's own `timeout_seconds` have passed."""


class Judge:
    """Answers questions; lives in one event loop.

    `in_flight`: calls at once, more are Busy. `cache_bytes`: answers that are kept, as text.
    """

    def __init__(self, in_flight: int, cache_bytes: int) -> None:
        self.limit = in_flight
        self.now = 0
        self._answers = _Answers(cache_bytes)
        self._lookup = Lookup(get_settings().database_url)
        self._aliases: Fresh[str | None, str] = Fresh(self._lookup.version_id)
        self._calls: InFlight[bytes, Answered] = InFlight()
        self._versions: OrderedDict[str, ModelVersion] = OrderedDict()
        self._templates: dict[str, JudgeTemplate] = {}
        self._models: OrderedDict[str, asyncio.Task[tuple[Engine, Asker]]] = OrderedDict()

    async def __call__(self, question: JudgeIn) -> JudgeOut:
        """The verdict on a pair of responses; the same question to the same version, the same
        answer.

        Raises AliasError (which version?), UnknownName (which template?), TooLong, Busy,
        DeadlineExceeded, and inference's InferenceErrors.
        """
        if self.now >= self.limit:
            raise Busy(f"{self.limit} calls are being answered")
        self.now += 1
        deadline = asyncio.timeout(question.timeout_seconds)
        try:
            async with deadline:
                return await self._judge(question, time.perf_counter())
        except TimeoutError as error:
            if not deadline.expired():
                raise
            told = f"no answer within {question.timeout_seconds:g} s"
            raise DeadlineExceeded(told) from error
        finally:
            self.now -= 1

    async def warm_up(self) -> None:
        """Open the newest versions that aliases name, so that no call waits for what it can load.

        What cannot be opened is logged; who asks for it is told.
        """
        try:
            versions = await to_thread.run_sync(_named)
        except (OperationalError, InterfaceError) as error:
            logger.warning("no warm-up without Postgres: %s", error)
            return
        for version in versions:
            try:
                await self._open(version)
            except (InferenceError, StoreError) as error:
                logger.warning("no warm-up of %s: %s", version.ref, error)

    async def close(self) -> None:
        """Give connections back."""
        await self._lookup.close()
        for model in self._models.values():
            if model.done() and model.exception() is None:
                await model.result()[1].close()

    async def _judge(self, question: JudgeIn, started: float) -> JudgeOut:
        version = await self._version(await self._aliases.get(question.model))
        template = await self._template(question.template or version.lineage["template"]["name"])
        requests = requests_of(question, template)
        sampling = sampling_of(version, question.votes)
        key = _key(version, requests, sampling)
        kept = question.votes == 1 if question.cache is None else question.cache
        found = self._answers.get(key) if kept else None
        if found is not None:
            out = ruling(question, version, template, found)
            return _out(out, started, cached=True)
        answered = await self._calls.get(key, lambda: self._ask(version, requests, sampling))
        out = ruling(question, version, template, answered.completions)
        if kept:
            self._answers.put(key, answered.completions)
        return _out(out, started, answered)

    async def _version(self, version_id: str) -> ModelVersion:
        found = self._versions.get(version_id)
        if found is None:
            found = self._versions[version_id] = await to_thread.run_sync(_row, version_id)
            while len(self._versions) > VERSIONS:
                self._versions.popitem(last=False)
        return found

    async def _template(self, name: str) -> JudgeTemplate:
        found = self._templates.get(name)
        if found is None:  # a name never changes its content
            found = self._templates[name] = await to_thread.run_sync(judge_template, name)
        return found

    async def _ask(
        self, version: ModelVersion, requests: Sequence[Request], sampling: SamplingSettings
    ) -> Answered:
        ready = await self._open(version)
        return await ready.ask(requests, sampling)

    async def _open(self, version: ModelVersion) -> Asker:
        model = self._models.get(version.id)
        if model is None:
            while len(self._models) >= KEPT:  # the one asked longest ago makes room
                _, oldest = self._models.popitem(last=False)
                if oldest.done() and oldest.exception() is None:
                    forget_engine(oldest.result()[0])
            model = self._models[version.id] = asyncio.create_task(_load(version))
        self._models.move_to_end(version.id)
        try:
            _, ready = await asyncio.shield(model)
        except Exception:
            if self._models.get(version.id) is model:
                del self._models[version.id]  # the next call tries again
            raise
        return ready


def _row(version_id: str) -> ModelVersion:
    with transaction() as session:
        return session.get_one(ModelVersion, version_id)


def _named() -> list[ModelVersion]:
    with transaction() as session:
        named = select(Alias.version_id)
        query = select(ModelVersion).where(ModelVersion.id.in_(named))
        return list(session.scalars(query.order_by(ModelVersion.created_at.desc()).limit(KEPT)))


async def _load(version: ModelVersion) -> tuple[Engine, Asker]:
    engine = await to_thread.run_sync(lambda: open_version(version, patience=PATIENCE))
    return engine, asker(engine)


def _key(version: ModelVersion, requests: Sequence[Request], sampling: SamplingSettings) -> bytes:
    """Everything that the completions follow from."""
    asked = [[request.messages, request.seed, request.n] for request in requests]
    text = orjson.dumps([version.id, asked, sampling.model_dump()])
    return hashlib.blake2b(text, digest_size=32).digest()


def _out(
    found: Ruling, started: float, answered: Answered | None = None, cached: bool = False
) -> JudgeOut:
    total = time.perf_counter() - started
    # Who joined an equal call that was in flight has waited for a part of it only.
    engine = min(answered.engine, total) if answered else 0.0
    queue = min(answered.queue, total - engine) if answered else 0.0
    latency = Latency(total=total, queue=queue, engine=engine)
    return JudgeOut(**found.model_dump(), cached=cached, latency=latency)


class _Answers:
    """The answers asked for last, up to a size."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[bytes, list[list[Completion]]] = OrderedDict()

    def get(self, key: bytes) -> list[list[Completion]] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: bytes, answer: list[list[Completion]]) -> None:
        if key in self._kept:
            return
        self._kept[key] = answer
        self._size += _size(answer)
        while self._size > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._size -= _size(oldest)


def _size(answer: list[list[Completion]]) -> int:
    """About the bytes of an answer: its texts, and what else an object costs."""
    return 500 + sum(4 * len(vote.text) + 200 for votes in answer for vote in votes)
