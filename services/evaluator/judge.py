"""What the routes of main.py ask, without HTTP: which version answers, by which engine.

The version is looked up on every call, so a moved alias counts at once, in every replica. Looks and
questions that are equal and in flight together are one. Weights are loaded once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from selftaught import tenancy
from selftaught.contracts import (
    Asked,
    ChatIn,
    ChatOut,
    JudgeIn,
    JudgeOut,
    Latency,
    RankIn,
    Ranking,
    ResponseScore,
    Ruling,
    SamplingSettings,
    ScoreIn,
)
from selftaught.database import transaction
from selftaught.database.tables import ModelVersion
from selftaught.fences import fence_key
from selftaught.ids import new_id
from selftaught.inference import Completion, Engine, Request
from selftaught.inference.factory import KEPT
from selftaught.judging import JudgeTemplate, ScoreTemplate
from selftaught.registry import judge_template, score_template
from selftaught.settings import get_settings
from selftaught.versions import open_version
from services.evaluator import chat
from services.evaluator.askers import Answered, Asker, asker
from services.evaluator.calibration import Calibrations
from services.evaluator.live import Live
from services.evaluator.lookup import Lookup, Named, Ref
from services.evaluator.metrics import Counted
from services.evaluator.opened import Opened, named_versions, news
from services.evaluator.ranking import rank
from services.evaluator.recorder import Recorder
from services.evaluator.ruling import (
    requests_of,
    ruling,
    sampling_of,
    score_of,
    score_requests,
)
from services.evaluator.sharing import Fresh, InFlight
from services.evaluator.traffic import Traffic

logger = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that a caller waits for a server to be started."""
CHAT_SECONDS = 600.0
"""Deadline of a chat completion; OpenAI's clients wait as long."""
COMPARED_AT_ONCE = 64
"""Comparisons of one ranking in flight."""
VERSIONS = 64
"""Rows of versions that are kept; a row never changes."""


class Busy(Exception):
    """As many calls as this replica takes are being answered."""


class DeadlineExceeded(Exception):
    """The call's own `timeout_seconds` have passed."""


@dataclass(frozen=True)
class Answer(Answered):
    """Completions for each request, and whether a former call's."""

    cached: bool


class Judge:
    """Answers questions; lives in one event loop.

    `in_flight`: calls at once, more are Busy. `cache_bytes`: answers that are kept, as text.
    `counted` counts.
    """

    def __init__(self, in_flight: int, cache_bytes: int, counted: Counted) -> None:
        self.limit = in_flight
        self._counted = counted
        self.now = 0
        self._answers = _Answers(cache_bytes)
        self.recorder = Recorder()
        self.traffic = Traffic(self._judged, lambda: self.now * 2 > self.limit, self.recorder)
        self._lookup = Lookup(get_settings().database_url)
        self._aliases: Fresh[Ref, Named] = Fresh(self._lookup.named)
        self._calls: InFlight[bytes, Answered] = InFlight()
        self._key: bytes | None = None
        self._versions: OrderedDict[tuple[str | None, str], ModelVersion] = OrderedDict()
        self._templates: dict[tuple[str | None, str], JudgeTemplate] = {}
        self._score_templates: dict[tuple[str | None, str], ScoreTemplate] = {}
        self._opened = Opened(_load)
        self._calibrations = Calibrations()

    async def judge(
        self, question: JudgeIn, request_id: str | None = None, live: Live | None = None
    ) -> JudgeOut:
        """The verdict on a pair of responses; the same question to the same version, the same
        answer. `live` hears the reasoning as it is written.

        Raises AliasError (which version?), UnknownName (which template?), TooLong, Busy,
        DeadlineExceeded, and inference's InferenceErrors; so do the other methods.
        """
        started = time.perf_counter()
        async with self._admitted(question.timeout_seconds):
            named = await self._aliases.get(_ref(question.model))
            return await self.traffic.judge(question, named, request_id, started, live)

    async def score(self, question: ScoreIn) -> ResponseScore:
        """How good one response is: the mean of as many scores as votes."""
        started = time.perf_counter()
        async with self._admitted(question.timeout_seconds):
            version = await self._resolve(question.model)
            template = await self._score_template(question.template)
            answer = await self._answer(
                version,
                score_requests(question, template, await self._fence_key()),
                sampling_of(version, question.votes),
                question,
            )
            found = score_of(question, version, template, answer.completions[0])
        return ResponseScore(**found, **_told(answer, started))

    async def rank(self, question: RankIn) -> Ranking:
        """Responses from the best to the worst; all comparisons by one version."""
        started = time.perf_counter()
        async with self._admitted(question.timeout_seconds):
            version = await self._resolve(question.model)
            room = asyncio.Semaphore(COMPARED_AT_ONCE)

            async def compare(one: int, other: int) -> Ruling:
                async with room:
                    found, _ = await self._rule(version, question.pair(one, other))
                    return found

            return await rank(question, compare, started)

    async def chat(self, question: ChatIn, heard: chat.Chunks | None = None) -> ChatOut:
        """What a version says in a conversation; each time anew. `heard` hears it as it is
        written."""
        async with self._admitted(CHAT_SECONDS):
            version = await self._resolve(question.model)
            requests = chat.requests_of(question)
            if heard is not None:
                requests = heard.begin(version, requests)
            sampling = question.sampling(version.lineage["judge_max_tokens"])
            new = await self._ask(version, requests, sampling)
            return chat.completion(question, version, new.completions)

    async def warm_up(self) -> None:
        """Open the newest versions that aliases name, so that no call waits for what it can load.

        What cannot be opened is logged; who asks for it is told.
        """
        try:
            versions = await self._look_at_names()
        except SQLAlchemyError as error:
            logger.warning("no warm-up without Postgres: %s", error)
            return
        for version in versions[:KEPT]:
            try:
                await self._opened.get(version)
            except Exception as error:  # noqa: BLE001 who asks for it is told
                logger.warning("no warm-up of %s: %s: %s", version.ref, type(error), error)

    async def prepare(self, version_id: str) -> ModelVersion:
        """Open a version, and see that its engine answers, so that no call waits for it.

        Raises NoResultFound (no such version), InferenceErrors, StoreError.
        """
        version = await self._version(version_id)
        ready = await self._opened.get(version)
        await ready.warm()
        return version

    @asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        """Writes down what is recorded, and opens versions that come to be named, in the block."""
        tasks = [asyncio.create_task(self.recorder.run()), asyncio.create_task(self._follow())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.traffic.close()
            await self.recorder.close()

    async def close(self) -> None:
        """Give connections back."""
        await self._lookup.close()
        await self._opened.close()

    async def _follow(self) -> None:
        """Open what aliases and canaries name, as soon as they do.

        Weights and tokenizers only: a server is not started, or kept from a training that needs
        its device, for calls that may never come. Who moves an alias by hand has it started.
        """
        async for told in news(get_settings().database_url):
            try:
                named = [version.id for version in await self._look_at_names()]
            except SQLAlchemyError as error:
                logger.warning("versions that are named now are not opened: %s", error)
                continue
            if told not in named:
                self._lookup.forget(told)
            for version_id in named[:KEPT] if told is None else {told} & set(named):
                try:
                    await self._opened.get(await self._version(version_id))
                except Exception as error:  # noqa: BLE001 who asks for it is told
                    logger.warning("%s is not open yet: %s: %s", version_id, type(error), error)

    async def _look_at_names(self) -> list[ModelVersion]:
        """Versions that are named now, newest first; they stay open rather than others."""
        versions = await to_thread.run_sync(named_versions)
        self._opened.named = frozenset(version.id for version in versions)
        return versions

    @asynccontextmanager
    async def _admitted(self, seconds: float) -> AsyncIterator[None]:
        """Room for a call, and its deadline. Raises Busy, DeadlineExceeded."""
        if self.now >= self.limit:
            raise Busy(f"{self.limit} calls are being answered")
        self.now += 1
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DeadlineExceeded(f"no answer within {seconds:g} s") from error
        finally:
            self.now -= 1

    async def _resolve(self, model: str | None) -> ModelVersion:
        return await self._version((await self._aliases.get(_ref(model))).version_id)

    async def _judged(
        self, version_id: str, question: JudgeIn, started: float, live: Live | None
    ) -> JudgeOut:
        """See traffic.Rule."""
        found, answer = await self._rule(await self._version(version_id), question, live)
        return JudgeOut(id=new_id("vdt"), **dict(found), **_told(answer, started))

    async def _rule(
        self, version: ModelVersion, question: JudgeIn, live: Live | None = None
    ) -> tuple[Ruling, Answer]:
        """What this version says of a pair."""
        template = await self._template(question.template or version.lineage["template"]["name"])
        requests = requests_of(question, template, await self._fence_key())
        if live is not None:
            requests = live.begin(question, version, template, requests)
        sampling = sampling_of(version, question.votes)
        answer = await self._answer(version, requests, sampling, question)
        if live is not None:
            live.end(answer.completions)
        calibration = await self._calibrations.of(version.id)
        return ruling(question, version, template, answer.completions, calibration), answer

    async def _answer(
        self,
        version: ModelVersion,
        requests: Sequence[Request],
        sampling: SamplingSettings,
        question: Asked,
    ) -> Answer:
        """The version's completions: a former call's, an equal call's in flight, or new ones.

        A call that is listened to shares with none in flight: it would have missed a part.
        """
        key = _key(version, requests, sampling)
        kept = question.votes == 1 if question.cache is None else question.cache
        found = self._answers.get(key) if kept else None
        if kept:
            self._counted.looked_up(found is not None)
        if found is not None:
            return Answer(found, 0.0, 0.0, cached=True)
        if any(request.hear for request in requests):
            new = await self._ask(version, requests, sampling)
        else:
            new = await self._calls.get(key, lambda: self._ask(version, requests, sampling))
        if kept and not any(one.finish_reason == "rejected" for n in new.completions for one in n):
            self._answers.put(key, new.completions)
        return Answer(new.completions, new.queue, new.engine, cached=False)

    async def _version(self, version_id: str) -> ModelVersion:
        key = (tenancy.current(), version_id)  # another project's version is none
        found = self._versions.get(key)
        if found is None:
            found = self._versions[key] = await to_thread.run_sync(_row, version_id)
            while len(self._versions) > VERSIONS:
                self._versions.popitem(last=False)
        return found

    async def _template(self, name: str) -> JudgeTemplate:
        key = (tenancy.current(), name)
        found = self._templates.get(key)
        if found is None:  # a name never changes its content
            found = self._templates[key] = await to_thread.run_sync(judge_template, name)
        return found

    async def _score_template(self, name: str) -> ScoreTemplate:
        key = (tenancy.current(), name)
        found = self._score_templates.get(key)
        if found is None:
            found = self._score_templates[key] = await to_thread.run_sync(score_template, name)
        return found

    async def _fence_key(self) -> bytes:
        if self._key is None:
            self._key = await to_thread.run_sync(fence_key)
        return self._key

    async def _ask(
        self, version: ModelVersion, requests: Sequence[Request], sampling: SamplingSettings
    ) -> Answered:
        """Completions; their tokens are counted here, so that also those of a ranking that runs out
        of time, or of a shadow, are.

        Who hangs up after hearing nearly all has had it: the pieces that were heard count, which
        servers send a token each.
        """
        ready = await self._opened.get(version)
        pieces = [0] * len(requests)
        project = tenancy.current() or tenancy.DEFAULT
        try:
            new = await ready.ask(
                [_counting(one, pieces, place) for place, one in enumerate(requests)], sampling
            )
        except asyncio.CancelledError:
            self.recorder.spend(project, sum(pieces))
            raise
        self.recorder.spend(project, self._counted.spent(new.completions))
        return new


def _counting(request: Request, pieces: list[int], place: int) -> Request:
    """The same request; `pieces[place]` counts what is heard of it."""
    hear = request.hear
    if hear is None:
        return request

    def heard(text: str) -> None:
        pieces[place] += 1
        hear(text)

    return replace(request, hear=heard)


def _ref(model: str | None) -> Ref:
    return tenancy.current() or tenancy.DEFAULT, model


def _row(version_id: str) -> ModelVersion:
    with transaction() as session:
        return session.get_one(ModelVersion, version_id)


async def _load(version: ModelVersion) -> tuple[Engine, Asker]:
    engine = await to_thread.run_sync(lambda: open_version(version, patience=PATIENCE))
    return engine, asker(engine)


def _key(version: ModelVersion, requests: Sequence[Request], sampling: SamplingSettings) -> bytes:
    """Everything that the completions follow from."""
    asked = [[one.messages, one.seed, one.n, one.marks] for one in requests]
    text = orjson.dumps([version.id, asked, sampling.model_dump()])
    return hashlib.blake2b(text, digest_size=32).digest()


def _told(answer: Answer, started: float) -> dict[str, Any]:
    total = time.perf_counter() - started
    # Who joined an equal call that was in flight has waited for a part of it only.
    engine = min(answer.engine, total)
    queue = min(answer.queue, total - engine)
    return {
        "cached": answer.cached,
        "latency": Latency(total=total, queue=queue, engine=engine),
    }


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
