"""A small server that really speaks the chat-completions protocol, with faults on request.

The last user message commands it: `fail:<status>:<times>` answers that status so many times before
it succeeds, `drop:<times>` breaks off in the middle of the answer, `slow:<seconds>` waits,
`last:<n>` waits until n others were answered (503 after 30 s),
`long` is cut off by the length limit, `garbage` answers something that is no completion; anything
else is answered by `reply`, which echoes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
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
        self.tries: Counter[str] = Counter()
        self.now = self.most = self.answered = 0
        self.url = ""
        self.reply: Callable[[str, int], str] = lambda text, seed: f"{text} {seed}"

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization"))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._answer(body)
        finally:
            self.now -= 1
            self.answered += 1

    async def _answer(self, body: dict[str, Any]) -> Response:
        text = body["messages"][-1]["content"]
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
        return JSONResponse(
            {
                "id": "x",
                "object": "chat.completion",
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "message": {
                            "role": "assistant",
                            "content": self.reply(text, body["seed"]),
                        },
                        "finish_reason": "length" if command == "long" else "stop",
                    }
                ],
                "usage": {"prompt_tokens": len(text), "completion_tokens": 3, "total_tokens": 9},
            }
        )


@contextmanager
def standin() -> Iterator[StandIn]:
    """A running stand-in on a free port."""
    state = StandIn()
    app = FastAPI()
    app.add_api_route("/v1/chat/completions", state.answer, methods=["POST"])
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
