"""What runs is data: one :class:`ProcessSpec` per process, one :class:`StackConfig` per stack.

Nothing here starts anything. Both travel as JSON to ``python -m selftaught.stack``, so a test can
hand the supervisor its own list of processes.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any


class StackError(RuntimeError):
    """The stack cannot start or stop; the message is for the person who asked."""


class AlreadyRunning(StackError):
    """Another supervisor holds this home."""


class Tier(IntEnum):
    """Stop order: the highest first, each tier gone before the next is asked."""

    POSTGRES = 0
    REDIS = 1
    SERVICE = 2
    WORKER = 3


@dataclass(frozen=True)
class ProcessSpec:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    tier: Tier = Tier.WORKER
    stop_signal: int = int(signal.SIGTERM)
    stop_seconds: float = 10.0
    url: str | None = None
    """Where people reach it, for the status table."""
    ready_url: str | None = None
    """It is ready when this answers 200."""
    ready_text: str | None = None
    """It is ready when its log says this."""
    cwd: str | None = None
    user: int | None = None
    group: int | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ProcessSpec:
        """The spec that :func:`dataclasses.asdict` and JSON made `raw` from."""
        values = dict(raw)
        values["command"] = tuple(values["command"])
        values["tier"] = Tier(values.get("tier", Tier.WORKER))
        return cls(**values)


@dataclass(frozen=True)
class StackConfig:
    """One stack."""

    home: str
    port: int | None = None
    """Gateway port; None: 8080 if free, else any; 0: any free one."""
    evaluator_port: int = 0
    """Of the first evaluator."""
    evaluators: int = 1
    """Replicas that answer /judge."""
    generator_workers: int = 2
    trainer_workers: int = 1
    only: frozenset[str] | None = None
    """Start only these, by name ("migrations" counts as a name); None: everything."""
    processes: tuple[ProcessSpec, ...] | None = None
    """Run these on top of Postgres and Redis instead of the platform's services."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of every process."""
    ready_seconds: float = 300.0
    tied: bool = False
    """Stop when standard input closes: the stack must not outlive the test that started it."""

    def wants(self, name: str) -> bool:
        """Whether process `name` belongs to this stack."""
        return self.only is None or name in self.only

    def to_json(self) -> str:
        """One line, for the supervisor's command line; it holds no secret."""
        values = asdict(self)
        values["only"] = sorted(self.only) if self.only is not None else None
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> StackConfig:
        """The inverse of :meth:`to_json`."""
        values: dict[str, Any] = json.loads(text)
        if values.get("only") is not None:
            values["only"] = frozenset(values["only"])
        if values.get("processes") is not None:
            values["processes"] = tuple(ProcessSpec.from_json(p) for p in values["processes"])
        return cls(**values)
