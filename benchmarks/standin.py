"""A stand-in for a model server: it answers every request after the same time, whatever is asked.

    python -m benchmarks.standin PORT [SECONDS [PLACES]]

An OpenAI-compatible chat endpoint, so that what the platform adds can be measured without a model's
own time and noise. The verdict follows from the prompt's bytes; `GET /count` says how many requests
were answered, and the sum of the prompts' checksums, which is the same for the same prompts in any
order. With PLACES so many are answered at once, as a real server does, the others wait, and some
answers are as bad as a real judge's: without a verdict, or with two.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from contextlib import nullcontext

import orjson
from aiohttp import web


def answer(said: str, mixed: bool) -> str:
    """A judgment of what was said; `mixed`: one in 16 has no verdict, one in 16 has two.

    Who is asked for a [RESULT], as Prometheus is, always gives one.
    """
    drawn = zlib.crc32(said.encode())
    mark, other = ("A", "B") if drawn % 2 == 0 else ("B", "A")
    if "[RESULT]" in said:
        return f"As it is. [RESULT] {mark}"
    kind = drawn // 2 % 16 if mixed else None
    if kind == 0:
        return "I cannot say."
    return f"Not [[{other}]] but\n[[{mark}]]" if kind == 1 else f"As it is.\n[[{mark}]]"


def create_app(seconds: float, places: int | None = None) -> web.Application:
    """An app that answers each chat completion after `seconds`, `places` of them at once."""
    app = web.Application(client_max_size=2**24)
    place = nullcontext() if places is None else asyncio.Semaphore(places)
    counted = {"answered": 0, "asked": 0}

    async def complete(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        async with place:
            await asyncio.sleep(seconds)
        said = "".join(message["content"] for message in body["messages"])
        counted["answered"] += 1
        counted["asked"] += zlib.crc32(said.encode())
        reply = {
            "id": f"chatcmpl-{counted['answered']}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": answer(said, places is not None),
                    },
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": len(said) // 4, "completion_tokens": 6},
        }
        return web.Response(body=orjson.dumps(reply), content_type="application/json")

    async def count(request: web.Request) -> web.Response:
        return web.json_response(counted)

    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/count", count)
    return app


if __name__ == "__main__":
    time = float(sys.argv[2]) if len(sys.argv) > 2 else 0.02
    places = int(sys.argv[3]) if len(sys.argv) > 3 else None
    # As vLLM does: a request whose client has left is ended, and not counted.
    web.run_app(
        create_app(time, places),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        handler_cancellation=True,
    )
