"""The memory plan: what a recipe's phases need on each GPU, before anything is started.

Bytes are counted from the architecture and from how the code works: vLLM's servers, and the
trainer's loop (services/trainer). docs/memory.md explains every formula and constant. Pure
functions; no torch, no GPU, no server.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from selftaught import engines
from selftaught.architectures import Architecture
from selftaught.contracts import LOCAL_INFERENCE, EngineSettings, Recipe, TrainSettings
from selftaught.inference.factory import KEPT

GIB = 2**30

USABLE = 0.98
"""Of a card sold as N GB, N GiB are usable up to this share: vLLM's logs name 23.55 GiB of 24,
31.37 of 32 and 139.72 of 141 (its issues 11550, 14452, 10702)."""

CONTEXT = GIB // 2
"""The CUDA context with its loaded kernels and cuBLAS workspaces; assumed."""

PEER = 3 * GIB // 4
"""NCCL and all-reduce buffers for every other GPU of the group (up to 8 share a machine). vLLM's
logs name 0.33 GiB outside torch on 2 GPUs and 5.2 to 5.7 GiB on 8, the context included."""

GRAPHS = GIB
"""CUDA graphs of a vLLM server; assumed (a log in gpustack/runner 251 names 0.36 GiB for a few)."""

LOCAL_CACHE = 4 * GIB
"""The most keys and values of `inference: local` (selftaught/inference/local.py: cache_bytes)."""

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight: 4, an 8-bit scale for 64 weights, and a 32-bit one for 256 of those (double
quantization; QLoRA, arXiv 2305.14314, section 3)."""


PARTS = (
    "weights",
    "adapters",
    "bf16 copies",
    "gathered layers",
    "gradients",
    "optimizer",
    "activations",
    "CUDA, NCCL",
    "KV cache",
    "KV cache of one sequence",
)
"""What a phase's memory is made of, in the order in which it is shown."""


@dataclass(frozen=True)
class Cache:
    """Keys and values. `token`: bytes of one token on each GPU; `room`: tokens that all copies of
    the model hold; `longest`: tokens of the longest sequence."""

    token: int
    room: int
    longest: int

    @property
    def at_once(self) -> float:
        """Longest sequences that can run at the same time."""
        return self.room / self.longest


@dataclass(frozen=True)
class Phase:
    """One use of GPUs. `parts`: bytes on each of `gpus`, the fullest one where they differ;
    `available`: what this phase may use of each; `fewest`: GPUs of this size that would do with
    otherwise equal settings (None: no number would)."""

    name: str
    model: str
    gpus: int
    parts: dict[str, int]
    available: int
    cache: Cache | None = None
    fewest: int | None = None
    misfit: str | None = None

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.misfit is None and self.needed <= self.available


@dataclass(frozen=True)
class Plan:
    """All phases of a recipe; they take turns on the GPUs. `elsewhere`: phases of an operator's
    endpoint, which need none here."""

    recipe: str
    gpu_memory: float
    phases: list[Phase]
    elsewhere: list[str]

    @property
    def gpus(self) -> int:
        """GPUs that the recipe asks for."""
        return max((phase.gpus for phase in self.phases), default=0)

    def refusals(self, gpus: int) -> list[str]:
        """Why the recipe cannot run on so many GPUs of this size, a sentence each; none if it
        can."""
        found = []
        for phase in self.phases:
            if phase.gpus > gpus:
                found.append(
                    f"{phase.name}: the recipe spreads {phase.model} over {phase.gpus} GPUs, and "
                    f"there {'is' if gpus == 1 else 'are'} {gpus}."
                )
            elif phase.misfit is not None:
                found.append(f"{phase.name}: {phase.misfit}.")
            elif not phase.fits:
                found.append(f"{phase.name}: {self._too_large(phase)}")
        return found

    def _too_large(self, phase: Phase) -> str:
        each = f"each of {phase.gpus} GPUs" if phase.gpus > 1 else "one GPU"
        remedy = "no number of GPUs of this size would do"
        if phase.fewest is not None:
            remedy = f"{phase.fewest} GPUs of this size would do"
        return (
            f"{phase.model} needs {phase.needed / GIB:.1f} GiB on {each}, and a GPU of "
            f"{self.gpu_memory:g} GB gives {phase.available / GIB:.1f}; {remedy}."
        )

    def as_json(self, gpus: int) -> dict[str, Any]:
        """Everything, in bytes."""
        refusals = self.refusals(gpus)
        return {
            "recipe": self.recipe,
            "gpus": gpus,
            "gpu_memory_gb": self.gpu_memory,
            "fits": not refusals,
            "refusals": refusals,
            "elsewhere": self.elsewhere,
            "phases": [
                {
                    "name": phase.name,
                    "model": phase.model,
                    "gpus": phase.gpus,
                    "parts": phase.parts,
                    "needed": phase.needed,
                    "available": phase.available,
                    "fits": phase.fits,
                    "fewest_gpus": phase.fewest,
                    "cache": phase.cache
                    and {
                        "bytes_per_token": phase.cache.token,
                        "tokens": phase.cache.room,
                        "longest_sequence": phase.cache.longest,
                    },
                }
                for phase in self.phases
            ],
        }


def make_plan(recipe: Recipe, known: Callable[[str], Architecture], gpu_memory: float) -> Plan:
    """The plan of a recipe on GPUs sold as `gpu_memory` GB; `known` gives a model's architecture by
    its name. Raises architectures.Unplanned."""
    usable = int(USABLE * gpu_memory * GIB)
    phases: list[Phase] = []
    elsewhere: list[str] = []
    for served, names in _uses(recipe).items():
        model = served.model
        if served.inference == "vllm":
            phase = serving(known(model), served.engine, served.rank, usable)
        elif served.inference == "local":
            in_float32 = served.trained and recipe.train.method == "full"  # as they were trained
            size = 4 if in_float32 else known(model).itemsize
            phase = local(known(model), size, usable)
        else:
            elsewhere.append(f"{', '.join(names)}: {model} at the endpoint {served.inference}")
            continue
        phases.append(replace(phase, name=", ".join(names), model=model))
    trained = training(
        known(recipe.base_model), recipe.train, *_longest(recipe, known(recipe.base_model)), usable
    )
    phases.append(replace(trained, name="train", model=recipe.base_model))
    return Plan(recipe.name, gpu_memory, phases, elsewhere)


@dataclass(frozen=True)
class _Served:
    """A model as it is served. `rank`: --max-lora-rank; `trained`: also its trained versions."""

    model: str
    inference: str
    engine_json: str
    rank: int
    trained: bool

    @property
    def engine(self) -> EngineSettings:
        return EngineSettings.model_validate_json(self.engine_json)


def _uses(recipe: Recipe) -> dict[_Served, list[str]]:
    """What is served, and for which phases; the seed that makes pairs shares the judge's server."""
    rank = int(engines.lineage(recipe)["max_lora_rank"])
    seed = _Served(recipe.base_model, recipe.inference, recipe.engine.model_dump_json(), rank, True)
    uses: dict[_Served, list[str]] = {}
    for name, role in (("label", recipe.labeller), ("pair", recipe.generator)):
        if name == "label" and recipe.select.quotas is None:
            continue
        served = seed
        if role is not None:
            engine = role.engine.model_dump_json()
            served = _Served(role.base_model, role.inference, engine, 0, False)
        uses.setdefault(served, []).append(name)
    judge = seed
    if recipe.inference not in LOCAL_INFERENCE:  # the endpoint has no trained versions
        judge = replace(seed, inference="local")
    uses.setdefault(judge, []).append("judge")
    return uses


def _longest(recipe: Recipe, model: Architecture) -> tuple[int, int]:
    """Tokens of the largest micro-batch of a training, and those with loss among them: a longer
    example than `micro_batch_tokens` goes through alone, DPO's two sides together."""
    longest = model.context
    if recipe.inference == "vllm" and recipe.engine.max_model_len is not None:
        longest = min(longest, recipe.engine.max_model_len)  # the judge writes nothing longer
    sides = 2 if recipe.train.objective == "sft_dpo" else 1
    tokens = max(recipe.train.micro_batch_tokens, sides * longest)
    written = sides * (recipe.judge.sampling.max_tokens + 1)
    return tokens, min(tokens, max(recipe.train.micro_batch_tokens, written))


# ---------------------------------------------------------------- inference


def serving(model: Architecture, engine: EngineSettings, rank: int, usable: int) -> Phase:
    """A vLLM server: `rank` is its --max-lora-rank, 0 for no adapters."""
    phase = _server(model, engine, rank, usable)
    for share in (1, 2, 4, 8, 16, 32, 64):
        other = _server(
            model,
            engine.model_copy(
                update={"tensor_parallel": share, "pipeline_parallel": 1, "data_parallel": 1}
            ),
            rank,
            usable,
        )
        if other.fits:
            return replace(phase, fewest=share)
    return phase


def _server(model: Architecture, engine: EngineSettings, rank: int, usable: int) -> Phase:
    size = 4 if engine.dtype == "float32" else 2  # 'auto' serves float32 models in 16 bits
    shards, stages = engine.tensor_parallel, engine.pipeline_parallel
    layers = math.ceil(model.layers / stages)
    longest = engine.max_model_len or model.context
    token = 2 * layers * max(1, model.kv_heads // shards) * model.head_dim * size
    parts = {
        "weights": _shard_weights(model, shards, stages, layers) * size,
        "adapters": engine.max_adapters * rank * _adapter_slot(model, shards, layers) * size,
        "activations": _inference_activations(model, shards, size, usable),
        "CUDA, NCCL": _overhead(shards * stages) + GRAPHS,
        "KV cache of one sequence": token * longest,
    }
    if not rank:
        del parts["adapters"]
    available = int(engine.memory_share * usable)
    left = available - sum(parts.values()) + parts["KV cache of one sequence"]
    cache = Cache(token, max(0, left // token) * engine.data_parallel, longest)
    misfit = None
    if model.heads % shards or (model.kv_heads % shards and shards % model.kv_heads):
        misfit = (
            f"{model.heads} attention heads ({model.kv_heads} of keys) cannot be divided by "
            f"tensor_parallel {shards}"
        )
    elif longest > model.context:
        misfit = f"max_model_len {longest} is more than the model's own {model.context} tokens"
    return Phase("", "", engine.devices, parts, available, cache, None, misfit)


def _shard_weights(model: Architecture, shards: int, stages: int, layers: int) -> int:
    """Weights on one GPU: matrices are split, keys and values as far as there are heads; norms,
    biases and routers are on every one. The first or the last stage has an end."""
    keys = 2 * model.hidden * model.key
    layer = (model.linear - keys) / shards + keys / min(shards, model.kv_heads) + model.small
    ends = model.embedding * (1 if model.tied or stages > 1 else 2)
    return int(layers * layer + ends / shards + model.hidden)


def _adapter_slot(model: Architecture, shards: int, layers: int) -> int:
    """Values that vLLM sets aside for one adapter and rank 1, on one GPU, used or not: of layers
    split by output A is whole and B split, of those split by input the other way round
    (vllm/lora/layers/base_linear.py); embedding and head are whole."""
    by_output = [model.attention[name] for name in "qkv"] + [
        model.feed_forward["gate"],
        model.feed_forward["up"],
    ]
    by_input = [model.attention["o"], model.feed_forward["down"]]
    layer = sum(a + b // shards for a, b in by_output) + sum(a // shards + b for a, b in by_input)
    return layers * layer + 2 * (model.vocab + model.hidden)


def _inference_activations(model: Architecture, shards: int, size: int, usable: int) -> int:
    """The largest step: residual and hidden state with the widest layer's input and output for
    --max-num-batched-tokens, and logits (16 and 32 bits) and probabilities for --max-num-seqs;
    vLLM's defaults for those go by the GPU's memory (EngineArgs)."""
    batched, sequences = 2048, 256
    if usable >= 0.98 * 70 * GIB:
        batched, sequences = 8192, 1024
    if usable >= 0.98 * 160 * GIB:
        batched = 16384
    attention = 2 * (model.query + model.key) // shards
    experts = model.experts_per_token
    feed_forward = experts * 3 * model.intermediate // shards
    feed_forward += experts * model.hidden if experts > 1 else 0
    step = batched * size * (2 * model.hidden + max(attention, feed_forward))
    return max(step, sequences * model.vocab * (2 + 4 + 4))


def local(model: Architecture, size: int, usable: int) -> Phase:
    """One process of `inference: local`, on one GPU; `size`: bytes of a weight."""
    token = 2 * model.layers * model.key * size
    parts = {
        "weights": KEPT * model.parameters * size,
        "activations": _inference_activations(model, 1, size, usable),
        "CUDA, NCCL": _overhead(1),
        "KV cache": LOCAL_CACHE,
    }
    cache = Cache(token, LOCAL_CACHE // token, model.context)
    phase = Phase("", "", 1, parts, usable, cache)
    return replace(phase, fewest=1 if phase.fits else None)


# ---------------------------------------------------------------- training


def training(
    model: Architecture, settings: TrainSettings, tokens: int, loss_tokens: int, usable: int
) -> Phase:
    """A training on `settings.devices` GPUs, each with its own micro-batches of at most `tokens`,
    of which `loss_tokens` carry loss."""

    def on(gpus: int) -> Phase:
        parts = _training_parts(model, settings, tokens, loss_tokens, gpus)
        return Phase("", "", gpus, parts, usable)

    fewest = next((gpus for gpus in range(1, 65) if on(gpus).fits), None)
    return replace(on(settings.devices), fewest=fewest)


def _training_parts(
    model: Architecture, settings: TrainSettings, tokens: int, loss_tokens: int, gpus: int
) -> dict[str, int]:
    bf16 = settings.dtype != "fp32"
    arithmetic = 2 if bf16 else 4
    full = settings.method == "full"
    held = 4 if full or not bf16 else model.itemsize  # loop.in_own_dtype
    matrix = NF4_BITS / 8 if settings.quantize == "nf4" and not full else float(held)
    layer = model.linear * matrix + model.small * held
    ends = model.ends * held
    trained = model.parameters if full else model.lora(settings.lora.rank)
    if model.experts > 1:
        model.lora(1)  # says that it is not planned

    weights = (model.layers * layer + ends) / gpus
    adapters = 0.0 if full else trained * 4 / gpus
    copies = trained * 2 if bf16 and gpus == 1 else 0  # autocast keeps bf16 copies of float32
    gathered = 0.0
    if gpus > 1:
        gathered = ends + 2 * layer
        if full:  # layers in the arithmetic's dtype, the rest in both, and whole gradients
            rest = held + 4 + (2 if bf16 else 0)
            gathered = (ends * rest + 2 * layer * (arithmetic + 4)) / held
    activations = _training_activations(model, settings, tokens, loss_tokens, bf16)
    step = 4 * trained / gpus  # AdamW on CUDA works on all weights at once (foreach)
    parts = {
        "weights": weights,
        "adapters": adapters,
        "bf16 copies": copies,
        "gathered layers": gathered,
        "gradients": 4 * trained / gpus,
        "optimizer": 8 * trained / gpus,
        "activations": max(activations, step),
        "CUDA, NCCL": _overhead(gpus),
    }
    return {name: math.ceil(size) for name, size in parts.items() if size}


def _training_activations(
    model: Architecture, settings: TrainSettings, tokens: int, loss_tokens: int, bf16: bool
) -> int:
    """Bytes at the peak of one micro-batch: what is kept for backward, and on top the larger of the
    loss over the vocabulary and the layer that backward is in."""
    full = settings.method == "full"
    short = bf16 and (full or model.itemsize == 2)
    residual = 2 if short and not full else 4
    saved = saved_activations(model, full, short, 0 if full else settings.lora.rank)
    working = 4 * model.hidden + 8 * model.intermediate  # gradients inside the layer
    if full and bf16:
        working //= 2  # LoRA computes its input's gradient a second time, in float32
    if settings.gradient_checkpointing:
        kept = model.layers * residual * model.hidden
        working += saved
    else:
        kept = model.layers * saved
    dequantized = 0
    if settings.quantize == "nf4" and not full:
        dequantized = 2 * model.hidden * max(model.intermediate, model.query)
    loss = loss_memory(model.vocab, loss_tokens)
    ends = 16 * model.hidden + 64  # last norm and its output; ids, labels, positions, masks
    return tokens * (kept + ends) + max(loss, tokens * working + dequantized)


def saved_activations(model: Architecture, full: bool, bf16: bool, rank: int) -> int:
    """Bytes for each token that one layer keeps for backward, in transformers' Llama with PEFT
    and SDPA attention (which keeps no scores; tests/test_memory.py measures them).

    As Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1) count for GPT, here for RMSNorm in
    float32, grouped-query attention and SwiGLU.
    """
    h, f, q, kv = model.hidden, model.intermediate, model.query, model.key
    scalars = 4 * model.heads + 8  # log-sum-exp of each head, two norms' variances
    adapters = 7 * rank * (2 if bf16 else 4)
    if not bf16:
        return (24 if full else 16) * h + 8 * q + 8 * kv + 16 * f + adapters + scalars
    if full:
        return 26 * h + 4 * q + 4 * kv + 8 * f + scalars
    return 18 * h + 6 * q + 4 * kv + 8 * f + adapters + scalars


def loss_memory(vocab: int, loss_tokens: int) -> int:
    """Bytes of the loss over the vocabulary at their peak, as services/trainer/objectives.py
    computes it, of the tokens with loss only: in backward, float32 log-probabilities, their
    gradient and that of the logits."""
    return 12 * vocab * loss_tokens


def _overhead(gpus: int) -> int:
    return CONTEXT + PEER * (min(gpus, 8) - 1)
