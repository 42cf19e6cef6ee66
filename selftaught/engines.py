"""Which vLLM servers are wanted, and which there are: rows that workers and nodes share.

Whoever asks a model version says so in `engine_demands`, and says it again while it asks. Every
node with an engine process (services/engine) starts a server for what is wanted, loads the adapter,
and writes where it answers. So nobody calls a node, and a node that is new, or comes back, finds
what it has to do.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, delete, func, select, text
from sqlalchemy.orm import InstrumentedAttribute

from selftaught import stopping
from selftaught.contracts import EngineSettings, Problem, Recipe
from selftaught.database import transaction
from selftaught.database.tables import (
    Device,
    EngineAdapter,
    EngineDemand,
    EngineServer,
    ModelVersion,
)
from selftaught.hashing import canonical_sha256

WANTED_SECONDS = 30.0
"""How long a demand counts that is not renewed."""

SEEN_SECONDS = 15.0
"""A node that has said nothing for so long counts as gone."""

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's --max-lora-rank that are worth having (it also knows 1)."""


class Spec(BaseModel):
    """What a server serves, and how; two jobs with the same share one."""

    model_config = ConfigDict(frozen=True)

    base: str  # as a version's path (versions.folder_of)
    name: str
    settings: EngineSettings
    max_lora_rank: int  # 0: no adapters
    probe: str | None = None  # below the versions folder: an adapter that it must be able to load

    @cached_property
    def key(self) -> str:
        """The same for the same spec, everywhere."""
        return canonical_sha256(self.model_dump())[:16]


@dataclass(frozen=True)
class Target:
    """A model version, as a server is asked for it."""

    version_id: str
    spec: Spec
    folder: Path
    adapter: str | None  # as a version's path, for the node that loads it

    @property
    def model(self) -> str:
        """Its name on the server: an adapter's is used for nothing else, ever."""
        return self.version_id if self.adapter is not None else self.spec.name


@dataclass(frozen=True)
class Served:
    """A server that answers as a target."""

    id: str
    url: str
    kv_tokens: int


@dataclass(frozen=True)
class Look:
    """What there is for a target now. `nodes`: that could start a server; `failed`: all gave up."""

    servers: tuple[Served, ...]
    nodes: int
    failed: Problem | None


def lineage(recipe: Recipe) -> dict[str, Any]:
    """What a version records of the server that it needs: settings, max_lora_rank, probe."""
    rank = 0
    if recipe.train.method == "lora":
        rank = next(fit for fit in LORA_RANKS if fit >= recipe.train.lora.rank)
    return {"settings": recipe.engine.model_dump(), "max_lora_rank": rank, "probe": None}


def target(version: ModelVersion, folder: Path) -> Target:
    """What to ask for to have this version, whose weights are in `folder`, answer."""
    config = folder / "adapter_config.json"
    base, adapter = version.path, None
    if config.exists():
        base = json.loads(config.read_text())["base_model_name_or_path"]
        adapter = version.path
    spec = Spec(base=base, name=Path(base).name, **version.lineage["engine"])
    return Target(version.id, spec, folder, adapter)


def want(target: Target, job_id: str = "") -> None:
    """Say that `target` is asked now, for a job if `job_id` is given.

    Who works under a lease that is lost (see stopping) wants nothing any more.
    """
    with transaction() as session:
        session.execute(
            text(
                "INSERT INTO engine_demands (version_id, job_id, key, spec, adapter, wanted_until) "
                "SELECT :version, CAST(:job AS varchar), :key, CAST(:spec AS jsonb), :adapter, "
                "clock_timestamp() + make_interval(secs => :s) WHERE CAST(:token AS varchar) = '' "
                "OR EXISTS (SELECT FROM chunks WHERE job_id = CAST(:job AS varchar) "
                "AND lock_token = CAST(:token AS varchar)) "
                "ON CONFLICT (version_id, job_id) DO UPDATE SET key = EXCLUDED.key, "
                "spec = EXCLUDED.spec, adapter = EXCLUDED.adapter, "
                "wanted_until = EXCLUDED.wanted_until"
            ),
            {
                "version": target.version_id,
                "job": job_id,
                "key": target.spec.key,
                "spec": target.spec.model_dump_json(),
                "adapter": target.adapter,
                "s": WANTED_SECONDS,
                "token": stopping.token(),
            },
        )


def unwant(job_id: str) -> None:
    """Say that the job asks nothing now, so that no server is kept or started for it."""
    with transaction() as session:
        session.execute(delete(EngineDemand).where(EngineDemand.job_id == job_id))


def alive(seen_at: InstrumentedAttribute[dt.datetime]) -> ColumnElement[bool]:
    """Whether a row's node was heard of of late."""
    return seen_at > func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, SEEN_SECONDS)


def look(target: Target) -> Look:
    """Which servers answer as `target`."""
    with transaction() as session:
        nodes = session.scalars(
            select(func.count(Device.node.distinct())).where(alive(Device.seen_at))
        ).one()
        servers = session.scalars(
            select(EngineServer)
            .where(EngineServer.key == target.spec.key, alive(EngineServer.seen_at))
            .order_by(EngineServer.node)
        ).all()
        adapters = {
            row.server_id: row
            for row in session.scalars(
                select(EngineAdapter).where(EngineAdapter.version_id == target.version_id)
            )
        }
    ready, problems = [], []
    for server in servers:
        adapter = adapters.get(server.id)
        if server.state == "failed":
            problems.append(server.error)
        elif target.adapter is not None and adapter is not None and adapter.state == "failed":
            problems.append(adapter.error)
        elif server.state == "ready" and (
            target.adapter is None or (adapter is not None and adapter.state == "ready")
        ):
            ready.append(Served(server.id, str(server.url), server.kv_tokens or 0))
    failed = Problem.model_validate(problems[0]) if len(problems) == len(servers) > 0 else None
    return Look(tuple(ready), nodes, failed)
