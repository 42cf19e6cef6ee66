"""The answer of a model server that streams it, put together again.

An OpenAI-compatible server that is asked with `stream: true` sends its answer in chunks. What they
make together is, for the rest of the code, the answer that it gives in one piece.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Mapping
from typing import Any

from selftaught.inference.protocol import Hear
from selftaught.sse import Reader

ASK = {"stream": True, "stream_options": {"include_usage": True}}
"""What a body has besides to be answered so."""


class Broken(Exception):
    """The stream did not come to its end, or is none of completions."""


async def assemble(lines: AsyncIterable[bytes], hear: Hear) -> dict[str, Any]:
    """The whole answer, of chat or plain completions. `hear` gets the first choice's text so far.

    Raises Broken.
    """
    reader, answer = Reader(), _Answer()
    try:
        async for line in lines:
            found = reader.line(line.decode().rstrip("\r\n"))
            # Reads on behind the [DONE], so that the connection can be used again.
            if found and found[1] != "[DONE]" and answer.add(json.loads(found[1])):
                hear(answer.text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # ValueError: no JSON, too
        raise Broken(f"not a stream of completions: {type(error).__name__}: {error}") from error
    return answer.whole()


class _Answer:
    def __init__(self) -> None:
        self.text = ""
        self._chat = False
        self._finish: str | None = None
        self._usage: Any = None
        self._logprobs: dict[str, list[Any]] = {}

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Take a chunk; whether it has text. The last one may have nothing but the usage."""
        if chunk.get("error"):
            raise Broken(f"the server broke off: {json.dumps(chunk['error'])[:500]}")
        self._usage = chunk.get("usage") or self._usage
        if not chunk["choices"]:
            return False
        choice = chunk["choices"][0]
        self._chat = "delta" in choice
        piece = choice["delta"].get("content") if self._chat else choice["text"]
        self._finish = choice.get("finish_reason") or self._finish
        for name, values in (choice.get("logprobs") or {}).items():
            self._logprobs.setdefault(name, []).extend(values or ())
        self.text += piece or ""
        return bool(piece)

    def whole(self) -> dict[str, Any]:
        if self._finish is None:
            raise Broken("the stream ended before the answer did")
        content = {"message": {"content": self.text}} if self._chat else {"text": self.text}
        choice = {**content, "finish_reason": self._finish, "logprobs": self._logprobs or None}
        return {"choices": [choice], "usage": self._usage}
