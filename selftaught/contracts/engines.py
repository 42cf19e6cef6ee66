"""Engine nodes, as an operator sees them."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Problem, example


class EngineDeviceOut(BaseModel):
    """A GPU (or the CPU) of a node, and who has it."""

    name: str = Field(description="CUDA index, or 'cpu'.")
    holder: str | None = Field(description="Id of the server, or <chunk>.<lease> of the training.")
    purpose: Literal["engine", "training"] | None = Field(description="What the holder is.")


class EngineAdapterOut(BaseModel):
    """A trained version on a server."""

    version: str = Field(description="name:number.")
    state: Literal["loading", "ready", "failed"] = Field(description="Only 'ready' is asked.")
    difference: float | None = Field(
        description="Largest change of a fixed probe's log-probabilities against the base (nats)."
    )
    error: Problem | None = Field(description="Why it failed.")


class EngineServerOut(BaseModel):
    """A vLLM server of a node."""

    id: str = Field(description="What holds its devices.")
    model: str = Field(description="The base model's folder.")
    state: Literal["starting", "ready", "draining", "failed"] = Field(
        description="'draining' ends what it has and takes nothing new."
    )
    kv_tokens: int | None = Field(description="Tokens that its KV cache holds.")
    restarts: int = Field(description="How often it crashed or hung and was started anew.")
    error: Problem | None = Field(description="Why it failed the last time.")
    adapters: list[EngineAdapterOut] = Field(description="Trained versions that it is to run.")
    created_at: dt.datetime = Field(description="When it was first wanted.")
    ready_at: dt.datetime | None = Field(description="When it last came to be ready.")


class EngineNodeOut(BaseModel):
    """A machine that runs engines."""

    model_config = example(
        node="gpu-1",
        alive=True,
        devices=[{"name": "0", "holder": "srv_019ac5a72936b1e80b1d2364", "purpose": "engine"}],
        servers=[
            {
                "id": "srv_019ac5a72936b1e80b1d2364",
                "model": "Llama-3.1-8B-Instruct",
                "state": "ready",
                "kv_tokens": 412_000,
                "restarts": 0,
                "error": None,
                "adapters": [
                    {"version": "tour:1", "state": "ready", "difference": 0.21, "error": None}
                ],
                "created_at": "2026-11-27T09:00:00Z",
                "ready_at": "2026-11-27T09:01:30Z",
            }
        ],
    )

    node: str = Field(description="Its name (SELFTAUGHT_NODE).")
    alive: bool = Field(description="Its engine process was heard of within the last 15 s.")
    devices: list[EngineDeviceOut] = Field(description="Its GPUs, or its CPU.")
    servers: list[EngineServerOut] = Field(description="Those that it runs or ought to.")
