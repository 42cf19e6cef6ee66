"""Any OpenAI-compatible chat endpoint (vLLM first), with a full window of requests in flight.

N samples go out as N requests with n=1: siblings share the server's prefix cache, each stops when
it is done, and no batch waits for its slowest member.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from selftaught.hashing import stable_seed
from selftaught.inference.posting import NoAnswer, Poster, Reply, poster, proxy_of
from selftaught.inference.protocol import (
    Completion,
    EngineRefused,
    EngineUnavailable,
    Hear,
    ModelLoadError,
    Sampling,
)
from selftaught.inference.streaming import StreamingEngine, Window
from selftaught.judging import TAIL, TOP, Message, Token, mark_logprobs
from selftaught.settings import SecretError, endpoint_key

PROMPT_STATUS = frozenset({400, 413, 422})
"""Statuses that may be about one prompt (too long), not about the whole set-up."""


class OpenAIEngine(StreamingEngine[list[Message]]):
    """One model behind `POST {base_url}/chat/completions`.

    `window`: requests in flight. `attempts`: tries per request for 429, 5xx and connection errors,
    with exponential backoff from `backoff` seconds, or as long as Retry-After says (at most 60 s).
    `endpoint`: its name, whose key is read at every call (see endpoint_key); without a name, or
    without a key, none is sent. A key that cannot be read raises ModelLoadError. `logprobs`: does
    the server give token alternatives? None: nobody has asked yet; one that refuses them is not
    asked for them again.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        endpoint: str | None = None,
        window: int = 256,
        attempts: int = 6,
        backoff: float = 0.5,
        timeout: float = 600.0,
    ) -> None:
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model = model
        self.attempts = attempts
        self.backoff = backoff
        self.logprobs: bool | None = None
        self._endpoint = endpoint
        self._window = window
        self._timeout = timeout

    @asynccontextmanager
    async def session(self) -> AsyncIterator[_ChatSession]:
        """See StreamingEngine."""
        try:
            key = endpoint_key(self._endpoint) if self._endpoint else None
        except SecretError as error:
            raise ModelLoadError(str(error)) from error
        proxy = proxy_of(self.url)
        async with poster(self._window, self._timeout, key, proxy) as server:
            yield _ChatSession(self, server, Window(self._window))


@dataclass
class _ChatSession:
    """See streaming.Session; the window counts requests."""

    engine: OpenAIEngine
    server: Poster
    window: Window

    @property
    def model(self) -> str:
        """See Session."""
        return self.engine.model

    def prepare(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages)

    def cost(self, prompt: list[Message], sampling: Sampling) -> float:
        return 1

    def together(self, sampling: Sampling) -> int:
        return 1  # not every server knows `n`, nor gives its choices seeds that follow on

    async def ask(
        self,
        prompt: list[Message],
        seed: int,
        samples: range,
        sampling: Sampling,
        hear: Hear | None = None,
        marks: tuple[str, ...] = (),
    ) -> list[Completion] | EngineRefused:
        found = await self._ask(prompt, stable_seed(seed, samples.start), sampling, hear, marks)
        return found if isinstance(found, EngineRefused) else [found]

    async def _ask(
        self,
        prompt: list[Message],
        seed: int,
        sampling: Sampling,
        hear: Hear | None,
        marks: tuple[str, ...],
    ) -> Completion | EngineRefused:
        body: dict[str, Any] = {
            "model": self.engine.model,
            "messages": prompt,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": 1,
            "seed": seed,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # vLLM's extension; other servers may reject it
        if not marks or self.engine.logprobs is False:
            return await self._post(body, hear)
        try:
            asked = {**body, "logprobs": True, "top_logprobs": TOP}
            found = await self._post(asked, hear, marks)
        except EngineRefused as refusal:
            found = refusal
        if isinstance(found, Completion):
            self.engine.logprobs = True
        elif not self.engine.logprobs:  # refused for the logprobs? Without them it will be seen
            found = await self._post(body, hear)
            if isinstance(found, Completion):
                self.engine.logprobs = False
        elif found.status not in PROMPT_STATUS:
            raise found
        return found

    async def _post(
        self, body: dict[str, Any], hear: Hear | None, marks: tuple[str, ...] = ()
    ) -> Completion | EngineRefused:
        """See :meth:`ask`; `marks` if the body asks for logprobs."""
        problem = ""
        for attempt in range(self.engine.attempts):
            wait = self.engine.backoff * 2**attempt * random.uniform(0.5, 1.0)
            try:
                reply = await self.server.post(self.engine.url, body, hear)
            except NoAnswer as error:
                problem = str(error)
            else:
                if reply.success:
                    return _completion(reply, marks)
                problem = f"HTTP {reply.status}: {reply.text}"
                if reply.status in PROMPT_STATUS:
                    return EngineRefused(reply.status, reply.text)
                if reply.status == 501 or (reply.status != 429 and reply.status < 500):
                    raise EngineRefused(reply.status, reply.text)
                wait = _retry_after(reply) or wait
            if attempt + 1 < self.engine.attempts:
                await asyncio.sleep(wait)
        told = f"{self.engine.url} after {self.engine.attempts} attempts: {problem}"
        raise EngineUnavailable(told)


def _retry_after(reply: Reply) -> float | None:
    value = reply.headers.get("retry-after", "")
    return min(float(value), 60.0) if value.isdigit() else None


def _completion(reply: Reply, marks: tuple[str, ...]) -> Completion:
    """The first choice of an answer; EngineUnavailable if it is not one."""
    try:
        answer = reply.json()
        choice = answer["choices"][0]
        usage = answer.get("usage") or {}
        return Completion(
            text=choice["message"]["content"] or "",
            finish_reason="length" if choice["finish_reason"] == "length" else "stop",
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            completion_tokens=int(usage.get("completion_tokens", 0)),
            mark_logprobs=mark_logprobs(_tail(choice), marks) if marks else None,
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise EngineUnavailable(f"not a chat completion: {reply.text[:200]!r}") from error


def _tail(choice: dict[str, Any]) -> list[Token]:
    """The last tokens of a choice; none if the server gives no logprobs."""
    try:
        return [
            Token(
                one["token"],
                float(one["logprob"]),
                [(other["token"], float(other["logprob"])) for other in one["top_logprobs"]],
            )
            for one in choice["logprobs"]["content"][-TAIL:]
        ]
    except (KeyError, TypeError):  # null, or a form of the server's own
        return []
