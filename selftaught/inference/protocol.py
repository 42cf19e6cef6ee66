"""What generator, trainer and evaluator may ask of a model, whatever serves it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from selftaught.contracts import Problem
from selftaught.contracts import SamplingSettings as Sampling
from selftaught.judging import Message

__all__ = [
    "Ask",
    "Completion",
    "Dialogue",
    "Engine",
    "EngineFailed",
    "EngineRefused",
    "EngineUnavailable",
    "Hear",
    "InferenceError",
    "ModelLoadError",
    "Request",
    "Sampling",
    "answer",
    "in_rounds",
]


Hear = Callable[[str], None]
"""Is told the text that a sample has so far, again and again, from any thread. A text that does not
begin with the one before is written anew (a server died). It must return at once."""


@dataclass(frozen=True)
class Request:
    """A conversation to continue `n` times: samples first .. first+n-1.

    A sample depends on (seed, its number) only, so asking for it later gives the same. `marks`:
    texts one of which a completion will write near its end; it is then told how likely each was.
    `hear` is told how the first of them grows; an engine may leave that out, and need not tell its
    end.
    """

    messages: Sequence[Message]
    seed: int
    n: int = 1
    first: int = 0
    marks: tuple[str, ...] = ()
    hear: Hear | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Completion:
    """One continuation.

    `finish_reason`: "stop" = the model ended it; "length" = cut off at max_tokens; "rejected" = the
    model cannot take this prompt (too long for it), text empty. Token counts are the model's own;
    the end token counts as a completion token. `mark_logprobs`: of each of the request's marks (see
    judging.mark_logprobs); None if none were asked for, or it cannot be told.
    """

    text: str
    finish_reason: Literal["stop", "length", "rejected"]
    prompt_tokens: int
    completion_tokens: int
    mark_logprobs: tuple[float, ...] | None = None

    @property
    def finished(self) -> bool:
        """The model ended it by itself: only then does its last line mean anything."""
        return self.finish_reason == "stop"


Ask = tuple[Request, Sampling]

Dialogue = Generator[Ask, list[Completion], None]
"""Yields a request, is sent its completions, and may then yield another, or end."""


class Engine(Protocol):
    """A loaded model."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """`n` completions for each request, in the order of the requests.

        Raises EngineUnavailable (try again later) or EngineRefused (will never work), and
        stopping.Stopped in the middle of work that is called off.
        """
        ...

    def converse(self, dialogues: Iterable[Dialogue]) -> None:
        """Ask every dialogue what it asks, until it ends; side by side, as the engine likes.

        What a dialogue gets depends on its own requests only. Raises as :meth:`generate`.
        """
        ...

    def close(self) -> None:
        """Give the memory or the connections back; the engine is not used afterwards."""
        ...


def in_rounds(
    generate: Callable[[Sequence[Request], Sampling], list[list[Completion]]],
    dialogues: Iterable[Dialogue],
    go_on: Callable[[int], bool] = lambda index: True,
) -> None:
    """Dialogues for an engine that works in batches: all that are open are asked together.

    After each round a dialogue (by its place in `dialogues`) is asked on only if `go_on` says so.
    """
    started = list(dialogues)
    asks = {index: next(one, None) for index, one in enumerate(started)}
    while asks := {index: ask for index, ask in asks.items() if ask is not None}:
        groups: dict[str, list[int]] = {}
        for index, (_, sampling) in asks.items():
            groups.setdefault(sampling.model_dump_json(), []).append(index)
        found: dict[int, list[Completion]] = {}
        for group in groups.values():
            sampling = asks[group[0]][1]
            answers = generate([asks[index][0] for index in group], sampling)
            found |= dict(zip(group, answers, strict=True))
        asks = {index: answer(started[index], found[index]) for index in asks}
        asks = {index: ask for index, ask in asks.items() if go_on(index)}


def answer(dialogue: Dialogue, completions: list[Completion]) -> Ask | None:
    """Tell a dialogue what it asked for; what it asks next, or None if it has ended."""
    try:
        return dialogue.send(completions)
    except StopIteration:
        return None


class InferenceError(Exception):
    """Any failure to get completions."""


class ModelLoadError(InferenceError):
    """A model could not be loaded; `reason` is fit for a user to read."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EngineFailed(InferenceError):
    """The nodes gave up serving the model; `problem` says why, fit for a user to read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.title}: {problem.detail}")
        self.problem = problem


class EngineUnavailable(InferenceError):
    """The endpoint did not answer, also not after retries: a failure of the system."""


class EngineRefused(InferenceError):
    """The endpoint answered that it will not do this (key, model name, parameters)."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"HTTP {status}: {detail}")
        self.status = status
