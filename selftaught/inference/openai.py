"""Any OpenAI-compatible chat endpoint (vLLM first), with a full window of requests in flight.

N samples go out as N requests with n=1: siblings share the server's prefix cache, each stops when
it is done, and no batch waits for its slowest member.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import Any

import httpx

from selftaught.hashing import stable_seed
from selftaught.inference.protocol import (
    Completion,
    EngineRefused,
    EngineUnavailable,
    Request,
    Sampling,
)

_PROMPT_STATUS = frozenset({400, 413, 422})
"""Statuses that may be about one prompt (too long), not about the whole set-up."""


class OpenAIEngine:
    """One model behind `POST {base_url}/chat/completions`.

    `window`: requests in flight. `attempts`: tries per request for 429, 5xx and connection errors,
    with exponential backoff from `backoff` seconds, or as long as Retry-After says (at most 60 s).
    The key is read from the environment variable `key_variable` at every call; none sends none.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_variable: str | None = None,
        window: int = 256,
        attempts: int = 6,
        backoff: float = 0.5,
        timeout: float = 600.0,
    ) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._key_variable = key_variable
        self._window = window
        self._attempts = attempts
        self._backoff = backoff
        self._timeout = timeout

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """See Engine. Not to be called from a running event loop; use :meth:`agenerate` there."""
        return asyncio.run(self.agenerate(requests, sampling))

    async def agenerate(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> list[list[Completion]]:
        """Like generate, for callers with an event loop.

        A prompt that the server rejects as such (400, 413, 422) becomes a "rejected" completion. If
        it rejects all of them, and not for their length, then the set-up is wrong: EngineRefused.
        """
        bodies = [
            self._body(request, sample, sampling)
            for request in requests
            for sample in range(request.first, request.first + request.n)
        ]
        done: list[Completion | EngineRefused] = [EngineRefused(0, "not asked")] * len(bodies)
        waiting = iter(range(len(bodies)))

        async def worker(client: httpx.AsyncClient) -> None:
            for index in waiting:
                done[index] = await self._ask(client, bodies[index])

        limits = httpx.Limits(max_connections=self._window)
        async with httpx.AsyncClient(
            headers=self._headers(), timeout=self._timeout, limits=limits
        ) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._window, len(bodies))):
                        group.create_task(worker(client))
            except* (EngineUnavailable, EngineRefused) as errors:
                raise errors.exceptions[0] from None
        refusals = [result for result in done if isinstance(result, EngineRefused)]
        if len(refusals) == len(done) and not all(_too_long(one) for one in refusals):
            raise refusals[0]
        flat = iter(
            Completion("", "rejected", 0, 0) if isinstance(result, EngineRefused) else result
            for result in done
        )
        return [[next(flat) for _ in range(request.n)] for request in requests]

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self._key_variable) if self._key_variable else None
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _body(self, request: Request, sample: int, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(request.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": 1,
            "seed": stable_seed(request.seed, sample),
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # vLLM's extension; other servers may reject it
        return body

    async def _ask(
        self, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> Completion | EngineRefused:
        problem = ""
        for attempt in range(self._attempts):
            wait = self._backoff * 2**attempt * random.uniform(0.5, 1.0)
            try:
                response = await client.post(self._url, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return _completion(response)
                problem = f"HTTP {response.status_code}: {response.text[:500]}"
                if response.status_code in _PROMPT_STATUS:
                    return EngineRefused(response.status_code, response.text[:500])
                if response.status_code != 429 and response.status_code < 500:
                    raise EngineRefused(response.status_code, response.text[:500])
                wait = _retry_after(response) or wait
            if attempt + 1 < self._attempts:
                await asyncio.sleep(wait)
        raise EngineUnavailable(f"{self._url} after {self._attempts} attempts: {problem}")


def _too_long(refusal: EngineRefused) -> bool:
    """The prompt, and nothing else, is at fault (vLLM and OpenAI say "maximum context length")."""
    return refusal.status == 413 or "context length" in str(refusal).replace("_", " ").lower()


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return min(float(value), 60.0) if value.isdigit() else None


def _completion(response: httpx.Response) -> Completion:
    """The first choice of an answer; EngineUnavailable if it is not one."""
    try:
        answer = response.json()
        choice = answer["choices"][0]
        usage = answer.get("usage") or {}
        return Completion(
            text=choice["message"]["content"] or "",
            finish_reason="length" if choice["finish_reason"] == "length" else "stop",
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            completion_tokens=int(usage.get("completion_tokens", 0)),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise EngineUnavailable(f"not a chat completion: {response.text[:200]!r}") from error
