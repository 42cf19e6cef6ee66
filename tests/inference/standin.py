"""A small server that really speaks the (chat) completions protocol, with faults on request.

The last user message commands it: `fail:<status>:<times>` answers that status so many times before
it succeeds, `drop:<times>` breaks off in the middle of the answer, `slow:<seconds>` waits,
`last:<n>` waits until n others were answered (503 after 30 s),
`long` is cut off by the length limit, `garbage` answers something that is no completion; anything
else is answered by `reply`, which echoes.

With `stream` the answer comes word by word. After the second word `break:<times>` breaks off so
many times, `error:<times>` tells an error, `end:<times>` just ends, and `hold` waits for `go`;
`whole` does not stream.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse


class StandIn:
    """What the server saw."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.traceparents: list[str | None] = []
        self.tries: Counter[str] = Counter()
        self.now = self.most = self.answered = 0
        self.url = ""
        self.reply: Callable[[str, int], str] = lambda text, seed: f"{text} {seed}"
        self.read: Callable[[list[int]], str] = lambda tokens: str(len(tokens))
        """What the user said in a prompt of tokens."""
        self.fault = ""
        """Of every stream that has none of its own."""
        self.go = threading.Event()
        self.left = 0
        """Streams whose client left before their end."""

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization"))
        self.traceparents.append(request.headers.get("traceparent"))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._answer(body)
        finally:
            self.now -= 1
            self.answered += 1

    async def _answer(self, body: dict[str, Any]) -> Response:
        text = body["messages"][-1]["content"] if "messages" in body else self.read(body["prompt"])
        command, *arguments = text.split(":")
        self.tries[text] += 1
        if command == "fail" and self.tries[text] <= int(arguments[1]):
            return JSONResponse({"error": {"message": "asked to"}}, int(arguments[0]))
        if command == "drop" and self.tries[text] <= int(arguments[0]):
            return StreamingResponse(iter([b"{"]), headers={"content-length": "99"})
        if command == "slow":
            await asyncio.sleep(float(arguments[0]))
        if command == "last":
            for _ in range(3000):
                if self.answered >= int(arguments[0]):
                    break
                await asyncio.sleep(0.01)
            else:
                return JSONResponse({"error": {"message": "nobody else came"}}, 503)
        if command == "garbage":
            return JSONResponse({"choices": []})
        said = self.reply(text, body["seed"])
        usage = {"prompt_tokens": len(text), "completion_tokens": 3, "total_tokens": 9}
        reason = "length" if command == "long" else "stop"
        if body.get("stream") and command != "whole":
            fault = command if command == "hold" else self.fault
            if command in ("break", "error", "end") and self.tries[text] <= int(arguments[0]):
                fault = command
            parts = self._stream(said, reason, usage, "messages" in body, fault)
            return StreamingResponse(parts, media_type="text/event-stream")
        content: dict[str, Any] = {"text": said}
        if "messages" in body:
            content = {"message": {"role": "assistant", "content": said}}
        choices = [{"index": 0, **content, "finish_reason": reason}]
        if (n := body.get("n", 1)) > 1:  # of plain completions, as vLLM does
            texts = [self.reply(text, body["seed"] + index) for index in range(n)]
            choices = [
                {"index": index, "text": one, "finish_reason": reason, "token_ids": [0] * 3}
                for index, one in enumerate(texts)
            ]
            usage |= {"completion_tokens": 3 * n}
        return JSONResponse({"model": body["model"], "choices": choices, "usage": usage})

    async def _stream(
        self, said: str, reason: str, usage: dict[str, int], chat: bool, fault: str
    ) -> AsyncIterator[bytes]:
        """As vLLM does: a role first, a word a chunk, the usage last, and a comment on the way."""

        def chunk(text: str | None, finish: str | None = None) -> bytes:
            delta = {"content": text} if text is not None else {"role": "assistant", "content": ""}
            content = {"delta": delta} if chat else {"text": text or ""}
            choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
            return b"data: " + json.dumps({"choices": [choice], "usage": None}).encode() + b"\n\n"

        try:
            if chat:
                yield chunk(None)
            for number, word in enumerate(re.findall(r"\S+\s*|\s+", said)):
                if number == 2:
                    yield b": still here\n\n"
                    while fault == "hold" and not self.go.is_set():
                        await asyncio.sleep(0.01)
                    if fault == "break":
                        raise ConnectionAbortedError
                    if fault == "error":
                        yield b'data: {"error": {"message": "out of memory"}}\n\n'
                    if fault in ("error", "end"):
                        yield b"data: [DONE]\n\n"
                        return
                yield chunk(word)
            yield chunk("", reason)
            yield b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\r\n\r\n"
            yield b"data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left += 1
            raise


@contextmanager
def standin() -> Iterator[StandIn]:
    """A running stand-in on a free port."""
    state = StandIn()
    app = FastAPI()
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.add_api_route(path, state.answer, methods=["POST"])
    listener = socket.create_server(("127.0.0.1", 0))
    state.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield state
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
