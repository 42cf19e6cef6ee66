"""Questions to the judge, and the log of its answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Literal, TypeVar

from pydantic import BaseModel

from selftaught.client._async.transport import AsyncTransport
from selftaught.client.answers import Json, asked, given, moment, parse, url
from selftaught.contracts import (
    ChatMessage,
    JudgeDelta,
    JudgeOut,
    JudgeRestart,
    JudgeStart,
    Ranking,
    ResponseScore,
    VerdictOut,
    VerdictTrace,
)

Instruction = str | Sequence[ChatMessage | Mapping[str, str]]
"""What was asked, or the conversation that ends with it."""
JudgeEvent = JudgeStart | JudgeDelta | JudgeRestart | JudgeOut
_EVENTS: dict[str, type[JudgeEvent]] = {
    "start": JudgeStart,
    "delta": JudgeDelta,
    "restart": JudgeRestart,
    "verdict": JudgeOut,
}
T = TypeVar("T", bound=BaseModel)
SPARE_SECONDS = 15.0
"""A question's own timeout is the judge's to keep; the connection waits for this much more."""


class AsyncJudging:
    """The methods of a client that ask the judge."""

    _transport: AsyncTransport

    async def judge(
        self,
        instruction: Instruction,
        response_a: str,
        response_b: str,
        *,
        model: str | None = None,
        reference: str | None = None,
        rubric: str | None = None,
        template: str | None = None,
        votes: int | None = None,
        both_orders: bool | None = None,
        allow_tie: bool | None = None,
        explain: bool | None = None,
        cache: bool | None = None,
        timeout_seconds: float | None = None,
    ) -> JudgeOut:
        """Which of two responses is better?

        `instruction`: a text, or a conversation (messages with `role` and `content`) that ends with
        a user's. `model`: name, name:alias or name:number; default: the only model's `latest`.
        `reference`: an answer known to be good; `rubric`: what a good response must do.
        `votes`: 1 is greedy, more are sampled and counted. `both_orders` (default): disagreement of
        the two orders is a tie. `allow_tie=False`: A or B whenever anything could be read.
        `explain`: answer with what the model wrote. `cache`: may a former, equal answer be given?
        `timeout_seconds`: then its work ends; ApiError 504.
        """
        body = {**asked(instruction), "response_a": response_a, "response_b": response_b}
        options = given(
            model=model,
            reference=reference,
            rubric=rubric,
            template=template,
            votes=votes,
            both_orders=both_orders,
            allow_tie=allow_tie,
            explain=explain,
            cache=cache,
            timeout_seconds=timeout_seconds,
        )
        return await self._ask(JudgeOut, "/judge", {**body, **options})

    async def judge_stream(
        self,
        instruction: Instruction,
        response_a: str,
        response_b: str,
        *,
        model: str | None = None,
        reference: str | None = None,
        rubric: str | None = None,
        template: str | None = None,
        both_orders: bool | None = None,
        allow_tie: bool | None = None,
        explain: bool | None = None,
        cache: bool | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[JudgeEvent]:
        """As `judge` for one vote, told as it is written; the last item is the verdict.

        Who stops reading and closes this ends the judge's work.
        """
        body = {**asked(instruction), "response_a": response_a, "response_b": response_b}
        options = given(
            model=model,
            reference=reference,
            rubric=rubric,
            template=template,
            both_orders=both_orders,
            allow_tie=allow_tie,
            explain=explain,
            cache=cache,
            timeout_seconds=timeout_seconds,
        )
        events = self._transport.listen(
            "POST",
            "/judge",
            json={**body, **options, "stream": True},
            timeout=self._patience(timeout_seconds),
        )
        async with aclosing(events):
            async for name, data in events:
                if name in _EVENTS:
                    yield parse(_EVENTS[name], data)

    async def score(
        self,
        instruction: Instruction,
        response: str,
        *,
        model: str | None = None,
        reference: str | None = None,
        rubric: str | None = None,
        template: str | None = None,
        votes: int | None = None,
        explain: bool | None = None,
        cache: bool | None = None,
        timeout_seconds: float | None = None,
    ) -> ResponseScore:
        """How good is one response, from 0 to 10? Options as of `judge`."""
        options = given(
            model=model,
            reference=reference,
            rubric=rubric,
            template=template,
            votes=votes,
            explain=explain,
            cache=cache,
            timeout_seconds=timeout_seconds,
        )
        body = {**asked(instruction), "response": response, **options}
        return await self._ask(ResponseScore, "/v1/score", body)

    async def rank(
        self,
        instruction: Instruction,
        responses: Sequence[str],
        *,
        model: str | None = None,
        reference: str | None = None,
        rubric: str | None = None,
        template: str | None = None,
        votes: int | None = None,
        both_orders: bool | None = None,
        allow_tie: bool | None = None,
        method: Literal["tournament", "sort"] | None = None,
        comparisons: int | None = None,
        cache: bool | None = None,
        timeout_seconds: float | None = None,
    ) -> Ranking:
        """From the best response to the worst. Options as of `judge`.

        `method`: `tournament` (default): a Bradley-Terry fit to about `comparisons` comparisons,
        with intervals; `sort`: the fewest comparisons, trusting each of them.
        """
        options = given(
            model=model,
            reference=reference,
            rubric=rubric,
            template=template,
            votes=votes,
            both_orders=both_orders,
            allow_tie=allow_tie,
            method=method,
            comparisons=comparisons,
            cache=cache,
            timeout_seconds=timeout_seconds,
        )
        body = {**asked(instruction), "responses": list(responses), **options}
        return await self._ask(Ranking, "/v1/rank", body)

    async def _ask(self, model: type[T], path: str, body: Json) -> T:
        answer = await self._transport.call(
            "POST", path, json=body, timeout=self._patience(body.get("timeout_seconds"))
        )
        return self._transport.read(model, answer)

    def _patience(self, timeout_seconds: float | None) -> float:
        return max(self._transport.timeout, (timeout_seconds or 0.0) + SPARE_SECONDS)


class AsyncVerdicts:
    """`client.verdicts`: the log of answers, if it is on."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def get(self, verdict_id: str) -> VerdictTrace:
        """A logged answer, with the version that gave it."""
        return await self._transport.get(VerdictTrace, url("v1", "verdicts", verdict_id))

    def list(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        verdict: Literal["A", "B", "tie", "unparsable"] | None = None,
        content_sha256: str | None = None,
        request_id: str | None = None,
        since: dt.datetime | str | None = None,
        until: dt.datetime | str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[VerdictOut]:
        """Logged answers, newest first; those that fit all that is given."""
        return self._transport.pages(
            VerdictOut,
            "/v1/verdicts",
            after=after,
            limit=limit,
            params={
                "model": model,
                "version": version,
                "verdict": verdict,
                "content_sha256": content_sha256,
                "request_id": request_id,
                "from": moment(since),
                "to": moment(until),
            },
        )
