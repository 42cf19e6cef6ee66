"""What generator, trainer and evaluator may ask of a model, whatever serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from selftaught.contracts import SamplingSettings as Sampling
from selftaught.judging import Message

__all__ = [
    "Completion",
    "Engine",
    "EngineRefused",
    "EngineUnavailable",
    "InferenceError",
    "ModelLoadError",
    "Request",
    "Sampling",
]


@dataclass(frozen=True)
class Request:
    """A conversation to continue `n` times: samples first .. first+n-1.

    A sample depends on (seed, its number) only, so asking for it later gives the same.
    """

    messages: Sequence[Message]
    seed: int
    n: int = 1
    first: int = 0


@dataclass(frozen=True)
class Completion:
    """One continuation.

    `finish_reason`: "stop" = the model ended it; "length" = cut off at max_tokens; "rejected" = the
    model cannot take this prompt (too long for it), text empty. Token counts are the model's own;
    the end token counts as a completion token.
    """

    text: str
    finish_reason: Literal["stop", "length", "rejected"]
    prompt_tokens: int
    completion_tokens: int

    @property
    def finished(self) -> bool:
        """The model ended it by itself: only then does its last line mean anything."""
        return self.finish_reason == "stop"


class Engine(Protocol):
    """A loaded model."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """`n` completions for each request, in the order of the requests.

        Raises EngineUnavailable (try again later) or EngineRefused (will never work).
        """
        ...

    def close(self) -> None:
        """Give the memory or the connections back; the engine is not used afterwards."""
        ...


class InferenceError(Exception):
    """Any failure to get completions."""


class ModelLoadError(InferenceError):
    """A model could not be loaded; `reason` is fit for a user to read."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EngineUnavailable(InferenceError):
    """The endpoint did not answer, also not after retries: a failure of the system."""


class EngineRefused(InferenceError):
    """The endpoint answered that it will not do this (key, model name, parameters)."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"HTTP {status}: {detail}")
        self.status = status
