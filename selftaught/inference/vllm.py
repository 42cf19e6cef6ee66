"""A model version on the vLLM servers that nodes run for it (services/engine).

Prompts are rendered and tokenised here, once for all samples, by the tokenizer that training uses;
the server gets token ids. A few samples of a prompt are one request, for a request by itself costs
server and client as much as many tokens do; no more than a few, for they keep their room in the
window until all are done. All servers that answer as the version share the work; the samples of one
prompt go to the same one, whose prefix cache knows it. When a server dies, what it had not answered
is asked again, of another one or of the same one when it is back, and nothing else is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from sqlalchemy.exc import SQLAlchemyError

from selftaught.engines import Look, Served, Target, look, want
from selftaught.hashing import stable_seed
from selftaught.inference.chat import render_chat
from selftaught.inference.openai import PROMPT_STATUS
from selftaught.inference.pieces import Pieces
from selftaught.inference.posting import NoAnswer, Poster, Reply, poster
from selftaught.inference.protocol import (
    Completion,
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    Hear,
    ModelLoadError,
    Sampling,
)
from selftaught.inference.streaming import StreamingEngine, Window
from selftaught.judging import TAIL, TOP, Message, Token, mark_logprobs

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
RENEW_SECONDS = 5.0
NOBODY_SECONDS = 60.0
"""So long no node may be there before the request is given up."""
ATTEMPTS = 8
"""Tries of one request; each waits for a server that is ready."""
LOST_SECONDS = 2.0
"""A server that did not answer is left alone for so long; its node will have noticed by then."""
LEAST_WINDOW = 8192
MOST_CONNECTIONS = 1024
TOGETHER = 4
"""Samples of a request. With the shipped model on two cores a client that sends 4 gets 1.1 times as
many tokens a second as one that sends 1; with 8 or 15 it gets fewer again."""
_BY_NUMBER = "return_tokens_as_token_ids"
_EACH = "return_token_ids"


class VllmEngine(StreamingEngine[list[int]]):
    """One version. `job_id` is told of what happens to its servers. `patience`: seconds to wait for
    a server; None waits as long as a node tries to start one."""

    def __init__(self, target: Target, job_id: str = "", patience: float | None = None) -> None:
        self.target = target
        self.job_id = job_id
        self.patience = patience
        self.tokenizer = _tokenizer(str(target.folder), target.spec.base)
        self.pieces = Pieces(self.tokenizer)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[_TokenSession]:
        """See StreamingEngine. The version counts as wanted while the block runs."""
        async with poster(MOST_CONNECTIONS) as servers:
            session = _TokenSession(self, servers)
            await asyncio.to_thread(want, self.target, self.job_id)
            keeper = asyncio.create_task(session.keep())
            try:
                yield session
            finally:
                keeper.cancel()
                with suppress(asyncio.CancelledError):
                    await keeper


class _TokenSession:
    """See streaming.Session; the window counts tokens of prompts and expected completions."""

    def __init__(self, engine: VllmEngine, servers: Poster) -> None:
        self.model = engine.target.model
        self.window = Window(LEAST_WINDOW)
        self._engine, self._servers = engine, servers
        self._lost: dict[str, float] = {}
        # By the length limit, for a modified instruction is shorter than a response.
        self._written: Counter[int] = Counter()
        self._completions: Counter[int] = Counter()
        self._looking: asyncio.Task[Look] | None = None
        self._looked = 0.0
        self._seen = Look((), 1, None)

    def prepare(self, messages: Sequence[Message]) -> list[int]:
        tokenizer = self._engine.tokenizer
        try:
            text = render_chat(tokenizer, messages)
        except TemplateError as error:  # some models' templates refuse a system message
            raise EngineRefused(422, f"the model's chat template: {error}") from error
        return tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]

    def cost(self, prompt: list[int], sampling: Sampling) -> float:
        """Tokens: the prompt, and a completion as long as they are on average (at first: as long
        as they may be)."""
        limit = sampling.max_tokens
        done = self._completions[limit]
        return len(prompt) + (self._written[limit] / done if done else limit)

    def together(self, sampling: Sampling) -> int:
        return TOGETHER if sampling.temperature else 1  # vLLM refuses greedy ones with n

    async def ask(
        self,
        prompt: list[int],
        seed: int,
        samples: range,
        sampling: Sampling,
        hear: Hear | None = None,
        marks: tuple[str, ...] = (),
    ) -> list[Completion] | EngineRefused:
        body: dict[str, Any] = {
            "model": self._engine.target.model,
            "prompt": prompt,
            "seed": seed_of(seed, samples.start),
            **sampling.model_dump(),
        }
        if len(samples) > 1:  # vLLM adds its place to the seed of each, and tells by `usage` all
            body |= {"n": len(samples), _EACH: True}
        # Tokens by number, for their texts alone do not tell " A" from "A".
        if marks:
            body |= {"logprobs": TOP, _BY_NUMBER: True}
        problem = ""
        for _ in range(ATTEMPTS):
            server = await self._server(seed)
            try:
                reply = await self._servers.post(f"{server.url}/completions", body, hear)
            except NoAnswer as error:
                problem = str(error)
            else:
                if reply.success:
                    return self._read(reply, sampling.max_tokens, marks)
                problem = f"HTTP {reply.status}: {reply.text}"
                if reply.status in PROMPT_STATUS:
                    return EngineRefused(reply.status, reply.text)
                # 404: it has been started anew and the adapter is not yet there; 5xx: it dies.
            self._lost[server.id] = time.monotonic() + LOST_SECONDS
        raise EngineUnavailable(f"vLLM after {ATTEMPTS} attempts: {problem}")

    async def keep(self) -> None:
        """Say again and again that the version is wanted."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await asyncio.to_thread(want, self._engine.target, self._engine.job_id)
            except SQLAlchemyError as error:  # a wish outlives a short restart of Postgres
                log.warning("the wish for an engine was not renewed: %s", error)

    async def _server(self, seed: int) -> Served:
        """One that answers now, the same for the same seed; waits for it."""
        began = time.monotonic()
        while True:
            found = await self._look()
            now = time.monotonic()
            able = [one for one in found.servers if self._lost.get(one.id, 0.0) <= now]
            if able:
                self.window.widen(max(LEAST_WINDOW, sum(one.kv_tokens for one in able)))
                return able[seed % len(able)]
            if found.failed is not None:
                raise EngineFailed(found.failed)
            patience = NOBODY_SECONDS if not found.nodes else self._engine.patience
            if patience is not None and now - began > patience:
                told = "no node runs an engine" if not found.nodes else "no server is ready yet"
                raise EngineUnavailable(f"{told}, after {patience:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> Look:
        """The servers, as they were at most LOOK_SECONDS ago; one look for all who ask."""
        if self._looking is None or time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._looking = asyncio.create_task(asyncio.to_thread(look, self._engine.target))
        try:
            self._seen = await asyncio.shield(self._looking)
        except SQLAlchemyError as error:  # Postgres restarts: what was seen last may still be true
            log.warning("no look at the engines: %s", error)
        return self._seen

    def _read(self, reply: Reply, limit: int, marks: tuple[str, ...]) -> list[Completion]:
        answer = reply.json()
        choices, usage = answer["choices"], answer["usage"]
        told = [usage["completion_tokens"]]
        if len(choices) > 1:
            told = [len(choice["token_ids"]) for choice in choices]
        self._written[limit] += sum(told)
        self._completions[limit] += len(told)
        return [
            Completion(
                text=choice["text"],
                finish_reason="length" if choice["finish_reason"] == "length" else "stop",
                prompt_tokens=usage["prompt_tokens"],
                completion_tokens=tokens,
                mark_logprobs=mark_logprobs(self._tail(choice["logprobs"]), marks)
                if marks
                else None,
            )
            for choice, tokens in zip(choices, told, strict=True)
        ]

    def _tail(self, logprobs: dict[str, Any] | None) -> list[Token]:
        """The last tokens of an answer: by place, {token_id:<id>: log-probability} of the one that
        was written and of the most likely ones. An answer without tokens has none."""
        if not logprobs:
            return []
        pieces = self._engine.pieces
        found = []
        for name, logprob, options in zip(
            logprobs["tokens"][-TAIL:],
            logprobs["token_logprobs"][-TAIL:],
            logprobs["top_logprobs"][-TAIL:],
            strict=True,
        ):
            top = [
                (pieces[_id_of(other)], value)
                for other, value in options.items()
                if other != name or len(options) <= TOP  # else it is there beside the most likely
            ]
            found.append(Token(pieces[_id_of(name)], logprob, top))
        return found


def seed_of(seed: int, sample: int) -> int:
    """The seed of a prompt's sample: of samples that follow on each other, one more each time, as
    vLLM gives them to the `n` of a request. So a sample does not depend on its neighbours."""
    return stable_seed(seed, "samples") + sample


def _id_of(name: str) -> int:
    return int(name.removeprefix("token_id:"))


@lru_cache(maxsize=8)
def _tokenizer(folder: str, base: str) -> Any:
    """The version's tokenizer, or its base's. Raises ModelLoadError."""
    from transformers import AutoTokenizer

    problem: Exception | None = None
    for path in (folder, base):
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            problem = error
            continue
        if not tokenizer.chat_template:
            raise ModelLoadError("the tokenizer has no chat template")
        return tokenizer
    raise ModelLoadError(f"no tokenizer: {problem}")
