"""Engine nodes, as an operator sees them."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Problem


class EngineDeviceOut(BaseModel):
    name: str = Field(description="CUDA index, or 'cpu'.")
    holder: str | None = Field(description="Id of the server, or of the training's chunk.")
    purpose: Literal["engine", "training"] | None


class EngineAdapterOut(BaseModel):
    version: str = Field(description="name:number.")
    state: Literal["loading", "ready", "failed"]
    difference: float | None = Field(
        description="Largest change of a fixed probe's log-probabilities against the base (nats)."
    )
    error: Problem | None


class EngineServerOut(BaseModel):
    id: str
    model: str = Field(description="The base model's folder.")
    state: Literal["starting", "ready", "draining", "failed"]
    kv_tokens: int | None = Field(description="Tokens that its KV cache holds.")
    restarts: int
    error: Problem | None
    adapters: list[EngineAdapterOut]
    created_at: dt.datetime
    ready_at: dt.datetime | None


class EngineNodeOut(BaseModel):
    node: str
    alive: bool = Field(description="Its engine process was heard of within the last 15 s.")
    devices: list[EngineDeviceOut]
    servers: list[EngineServerOut]
