"""A stand-in for a model server: it answers every request after the same time, whatever is asked.

    python -m benchmarks.standin PORT [SECONDS]

An OpenAI-compatible chat endpoint, so that what the platform adds can be measured without a model's
own time and noise. The verdict follows from the prompt's bytes; `GET /count` says how many requests
were answered.
"""

from __future__ import annotations

import asyncio
import sys
import zlib

import orjson
from aiohttp import web


def create_app(seconds: float) -> web.Application:
    """An app that answers each chat completion after `seconds`."""
    app = web.Application(client_max_size=2**24)
    answered = 0

    async def complete(request: web.Request) -> web.Response:
        nonlocal answered
        body = orjson.loads(await request.read())
        await asyncio.sleep(seconds)
        answered += 1
        said = "".join(message["content"] for message in body["messages"])
        mark = "AB"[zlib.crc32(said.encode()) % 2]
        reply = {
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": f"As it is.\n[[{mark}]]"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": len(said) // 4, "completion_tokens": 6},
        }
        return web.Response(body=orjson.dumps(reply), content_type="application/json")

    async def count(request: web.Request) -> web.Response:
        return web.json_response({"answered": answered})

    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/count", count)
    return app


if __name__ == "__main__":
    time = float(sys.argv[2]) if len(sys.argv) > 2 else 0.02
    # As vLLM does: a request whose client has left is ended, and not counted.
    web.run_app(
        create_app(time),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        handler_cancellation=True,
    )
