"""What a model is made of, from its config.json: enough to count parameters without the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import yaml

from selftaught.registry import base_models

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}

FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3")
"""Values of model_type whose parameters are counted."""


class Unplanned(Exception):
    """Nothing can be said about this model's memory."""


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama family. `context`: its longest sequence (tokens); `itemsize`: bytes of
    a weight as stored; `experts`: feed-forward networks of a layer, of which a token goes through
    `experts_per_token`. Counts are parameters, sizes of linear layers are (inputs, outputs)."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    itemsize: int
    tied: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    experts: int = 1
    experts_per_token: int = 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """From the fields of config.json. Raises Unplanned for what is not known here."""
        family = config.get("model_type")
        if family not in FAMILIES:
            raise Unplanned(f"model_type {family!r} is none of {', '.join(FAMILIES)}")
        if "quantization_config" in config:
            raise Unplanned("its weights are quantized already")
        stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
        if stored not in _ITEMSIZE:
            raise Unplanned(f"dtype {stored!r} is none of {', '.join(_ITEMSIZE)}")
        try:
            heads = int(config["num_attention_heads"])
            biased = bool(config.get("attention_bias", False))
            return cls(
                vocab=int(config["vocab_size"]),
                hidden=int(config["hidden_size"]),
                intermediate=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
                context=int(config["max_position_embeddings"]),
                itemsize=_ITEMSIZE[stored],
                tied=bool(config.get("tie_word_embeddings", False)),
                qkv_bias=family == "qwen2" or biased,
                out_bias=biased,
                mlp_bias=bool(config.get("mlp_bias", False)),
                qk_norm=family == "qwen3",
                experts=int(config["num_local_experts"]) if family == "mixtral" else 1,
                experts_per_token=int(config["num_experts_per_tok"]) if family == "mixtral" else 1,
            )
        except KeyError as error:
            raise Unplanned(f"its config.json has no {error}") from None

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def attention(self) -> dict[str, tuple[int, int]]:
        """A layer's linear layers of the attention."""
        h, q, kv = self.hidden, self.query, self.key
        return {"q": (h, q), "k": (h, kv), "v": (h, kv), "o": (q, h)}

    @property
    def feed_forward(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one feed-forward network."""
        h, f = self.hidden, self.intermediate
        return {"gate": (h, f), "up": (h, f), "down": (f, h)}

    @cached_property
    def linear(self) -> int:
        """Weights of a layer's matrices, all experts."""
        attention = sum(a * b for a, b in self.attention.values())
        return attention + self.experts * sum(a * b for a, b in self.feed_forward.values())

    @cached_property
    def small(self) -> int:
        """A layer's other parameters: norms, biases, the router of the experts."""
        h, q, kv = self.hidden, self.query, self.key
        biases = self.qkv_bias * (q + 2 * kv) + self.out_bias * h
        biases += self.mlp_bias * (2 * self.intermediate + h)
        router = h * self.experts if self.experts > 1 else 0
        return 2 * h + self.qk_norm * 2 * self.head_dim + biases + router

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden

    @property
    def ends(self) -> int:
        """What lies outside the layers: embedding, last norm, output head if it is not tied."""
        return self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * (self.linear + self.small) + self.ends

    def lora(self, rank: int) -> int:
        """Parameters of an adapter on all linear layers but the output head: rank x (in + out) each
        (Hu et al. 2021, arXiv 2106.09685). Raises Unplanned for experts, which PEFT's all-linear
        does not reach."""
        if self.experts > 1:
            raise Unplanned("training of experts (MoE) is not planned")
        sizes = [*self.attention.values(), *self.feed_forward.values()]
        return self.layers * rank * sum(a + b for a, b in sizes)


def architecture(name: str) -> Architecture:
    """Of a base model by name: its own config.json if its folder is here, else what is shipped for
    the models that recipes name. Raises Unplanned."""
    folder = base_models().get(name)
    if folder is not None and (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text())
    else:
        config = yaml.safe_load((files("selftaught") / "architectures.yaml").read_text()).get(name)
    if config is None:
        raise Unplanned(f"{name}: no such model folder here, and its architecture is not shipped")
    try:
        return Architecture.from_config(config)
    except Unplanned as error:
        raise Unplanned(f"{name}: {error}") from None
