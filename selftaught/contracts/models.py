"""Model versions, aliases, templates."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, Field

from selftaught.contracts.base import Contract, Name, example
from selftaught.contracts.recipe import EngineSettings, SamplingSettings


class VersionOut(BaseModel):
    """An immutable version of a model, and everything that it came from."""

    model_config = example(
        ref="tour:1",
        id="ver_019ac5a3e5f2a14c7d9e1f20",
        model="tour",
        number=1,
        job="job_019ac5a1c3d08f2a5b7c9d0e",
        iteration=1,
        parent="tour:0",
        sha256="0d9c5e5f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5",
        lineage={
            "dataset": {"id": "ds_019ac5a0b2c07e1f4a6b8c9d", "sha256": "7a1f0c9e5b6d4c3a"},
            "template": {"name": "smallworld", "sha256": "6a0bb712516522fc"},
            "recipe": {"name": "quickstart", "iterations": 3, "seed": 0},
            "seed": 0,
            "code_version": "0.1.0",
            "counts": {"1.judge": {"judgments_sampled": 13632}},
            "human_labels_in_training": False,
        },
        metrics={"heldout": {"strict_accuracy": 0.8036, "position_bias": 0.013}},
        aliases=["latest"],
        created_at="2026-11-27T09:04:10Z",
    )

    ref: str = Field(description="name:number, exact and immutable.")
    id: str = Field(description="Of a trained one also its folder's name, in <home>/versions.")
    model: str = Field(description="The model's name.")
    number: int = Field(description="From 0, in the order in which they were made.")
    job: str | None = Field(description="Id of the job that made it.")
    iteration: int | None = Field(description="The iteration of that job.")
    parent: str | None = Field(description="The version that judged what it was trained on.")
    sha256: str = Field(description="Of its weights.")
    lineage: dict[str, Any] = Field(
        description="Dataset and template with their hashes, recipe, seed, code version, counts."
    )
    metrics: dict[str, Any] = Field(
        description="How good it is, by set (heldout, labelled), in the job that made it."
    )
    aliases: list[str] = Field(description="Those that point at it now.")
    created_at: dt.datetime = Field(description="When it was published.")


class VersionFile(BaseModel):
    """A file of a trained version."""

    model_config = example(
        name="adapter_model.safetensors",
        bytes=787176,
        url="/v1/models/tour/versions/1/files/adapter_model.safetensors",
    )

    name: str = Field(description="As PEFT or transformers saved it.")
    bytes: int = Field(description="Its size.")
    url: str = Field(description="Where to get it.")


class BaseModelOut(BaseModel):
    """A model that jobs may begin from and registrations may name."""

    model_config = example(name="smallworld")

    name: str = Field(description="What `base_model` of a recipe calls it.")


class ModelOut(BaseModel):
    """A name, its versions, and what its aliases mean now."""

    model_config = example(
        name="tour", versions=4, aliases={"candidate": "tour:3", "latest": "tour:2"}
    )

    name: str = Field(description="The model's name.")
    versions: int = Field(description="How many it has.")
    aliases: dict[str, str] = Field(description="Alias -> name:number.")


class AliasMove(BaseModel):
    """One move of an alias."""

    revision: int = Field(description="The alias's revision after it.")
    version: str = Field(description="Where it pointed then, name:number.")
    reason: str = Field(description="As given; of a gate its job, of a rollback that it was one.")
    by: str | None = Field(description="Name of the key that moved it; null: a gate, or no key.")
    created_at: dt.datetime = Field(description="When it moved.")


class AliasOut(BaseModel):
    """A name for one version of a model, and every version that it has named."""

    model_config = example(
        model="tour",
        alias="latest",
        version="tour:1",
        revision=2,
        history=[
            {
                "revision": 2,
                "version": "tour:1",
                "reason": "gate of job_019ac5a1c3d08f2a5b7c9d0e",
                "by": None,
                "created_at": "2026-11-27T09:04:20Z",
            },
            {
                "revision": 1,
                "version": "tour:0",
                "reason": "gate of job_019ac5a1c3d08f2a5b7c9d0e",
                "by": None,
                "created_at": "2026-11-27T09:01:50Z",
            },
        ],
    )

    model: str = Field(description="The model's name.")
    alias: str = Field(description="Its own name; `latest` is what /judge takes by default.")
    version: str = Field(description="Where it points, name:number.")
    revision: int = Field(description="Grows with every move; the ETag, for If-Match.")
    history: list[AliasMove] = Field(description="Every move, newest first.")


class AliasIn(Contract):
    """PUT /v1/models/{name}/aliases/{alias}; send If-Match with the revision you saw."""

    model_config = example(version=1, reason="reviewed by the search team")

    version: int = Field(ge=0, description="Number of the version that it is to name.")
    reason: str = Field("manual", max_length=500, description="Kept in the alias's history.")
    prepare: bool = Field(
        True, description="First have the evaluators open the version; refuse one that cannot be."
    )


class TemplateOut(BaseModel):
    """A prompt template; a name never changes its content."""

    model_config = example(
        name="mine",
        kind="judge",
        sha256="3b0f6f5b8d7c4e2a9f1d6c8b5a4e3f2d1c0b9a8f7e6d5c4b3a2f1e0d9c8b7a6f",
        shipped=False,
        content={
            "name": "mine",
            "kind": "judge",
            "user": "{instruction}\n\nA: {response_a}\n\nB: {response_b}\n\n[[A]] or [[B]]?",
            "verdicts": {"A": "[[A]]", "B": "[[B]]"},
        },
    )

    name: str = Field(description="What recipes and questions name it by.")
    kind: Literal["judge", "modify", "label", "best-of-four", "rating", "score"] = Field(
        description="What it asks a model for."
    )
    sha256: str = Field(description="Of the content; the name does not count.")
    shipped: bool = Field(description="It comes with the platform; else somebody uploaded it.")
    content: dict[str, Any] = Field(description="All of it, as POST /v1/templates takes it.")


class RegistrationIn(Contract):
    """POST /v1/models: a base model becomes a version as it is, to be evaluated or to judge."""

    model_config = example(base_model="smallworld", name="seed", template="smallworld")

    base_model: str = Field(description="A base model the operator allows, by name.")
    inference: str = Field(
        "local", description="'local', 'vllm' or the name of an operator's endpoint."
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    name: Name | None = Field(None, description="Default: the base model's.")
    template: str = Field("mt-bench", description="Judge template by name.")
    max_tokens: int = Field(1024, ge=1, description="Length limit of a judgment (tokens).")
    sampling: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(temperature=0.7, top_p=0.9),
        description="How votes are sampled where more than one is asked for.",
    )
