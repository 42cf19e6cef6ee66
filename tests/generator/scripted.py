"""An engine whose answers are a function: for tests of what is done with the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from selftaught.inference import Completion, Dialogue, Request, Sampling, in_rounds

Script = Callable[[str, int, int], str]
"""(last user message, seed, sample) -> text; a text that ends in … is cut off there."""


class Scripted:
    """Counts one token a character."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.calls: list[tuple[list[Request], Sampling]] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        self.calls.append((list(requests), sampling))
        return [
            [self._one(request, request.first + i) for i in range(request.n)]
            for request in requests
        ]

    def converse(self, dialogues: Iterable[Dialogue]) -> None:
        in_rounds(self.generate, dialogues)

    def close(self) -> None:
        pass

    def _one(self, request: Request, sample: int) -> Completion:
        shown = request.messages[-1]["content"]
        text = self._script(shown, request.seed, sample)
        return Completion(
            text.removesuffix("…"),
            "length" if text.endswith("…") else "stop",
            len(shown),
            len(text),
        )
