"""Forward passes for many samples of one prompt: the prompt is computed once and read once.

Two decoders with the same four calls. `SharedPrefixDecoder` keeps a single copy of each prompt's
keys and values, lets all samples of the prompt attend to it in one product, and holds only their
own tokens apart; it needs plain softmax attention (Llama, Qwen). `CachedDecoder` repeats the
transformers cache and works for every architecture. Neither knows about sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

ATTENTION = "selftaught_shared_prefix"
SHARED_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})
_BLOCK = 32
"""Columns by which the cache of own tokens grows at first; later it doubles."""

_POSITIONS = 4096
"""Of prompts computed together, so that what a layer needs does not grow with the batch."""


class Decoder(Protocol):
    """A batch being decoded; rows are samples, prompt by prompt."""

    def prefill(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> torch.Tensor:
        """Logits after each prompt [prompts, vocabulary]; prompt i then has copies[i] rows."""
        ...

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append one token [rows] to each row; logits of the next one [rows, vocabulary]."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only (ascending indices)."""
        ...


def supports_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether the model's attention is plain softmax over everything before."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return config.model_type in SHARED_ARCHITECTURES and kinds == {"full_attention"}


class SharedPrefixDecoder:
    """Cascade attention: one product with the shared prompt, one with the row's own tokens.

    Layout: prompt keys [prompts, kv heads, length, head size], padded on the right (causal masking
    hides the padding while prefilling, `_bias` afterwards); own keys [rows, kv heads, capacity,
    head size]. Row r stands in slot `_slots[r]` of a [prompts x most copies] grid.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._body: Any = model.get_decoder()
        self._head: Any = model.get_output_embeddings()
        self._device = model.device
        self._prefilling: slice | None = None
        self._prompt: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._steps = 0

    def prefill(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> torch.Tensor:
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        bias = torch.zeros(padding.shape).masked_fill_(padding, float("-inf"))
        self._bias = bias[:, None, None].to(self._device) if bool(padding.any()) else None
        self._width = max(copies)
        self._prompts, self._longest = ids.shape
        self._slots = torch.tensor(
            [self._width * p + c for p, count in enumerate(copies) for c in range(count)]
        )
        self._lengths = lengths[self._slots // self._width].to(self._device)
        self._full = len(self._slots) == self._width * self._prompts
        last = []
        for part in _parts(lengths.tolist()):
            own = lengths[part]
            shown = ids[part, : int(own.max())]
            self._prefilling = part
            hidden = self._forward(shown.to(self._device), torch.arange(shown.shape[1])[None])
            last.append(hidden[torch.arange(len(own)), own - 1])
        self._prefilling = None
        return self._head(torch.cat(last))

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = (self._lengths + self._steps)[:, None]
        hidden = self._forward(tokens[:, None].to(self._device), positions)
        self._steps += 1
        return self._head(hidden[:, 0])

    def keep(self, rows: torch.Tensor) -> None:
        slots = self._slots[rows]
        prompts, place = torch.unique(slots // self._width, return_inverse=True)
        self._lengths = self._lengths[rows.to(self._device)]
        self._own = [(self._cut(keys, rows), self._cut(values, rows)) for keys, values in self._own]
        if len(prompts) < self._prompts:
            self._prompt = [
                (keys[prompts.to(keys.device)], values[prompts.to(values.device)])
                for keys, values in self._prompt
            ]
            self._bias = None if self._bias is None else self._bias[prompts.to(self._device)]
        self._prompts = len(prompts)
        self._slots = place * self._width + slots % self._width
        self._full = len(self._slots) == self._width * self._prompts

    def _cut(self, own: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The rows of a cache, without copying columns that are not filled yet. Layers, and so
        their caches, may lie on different devices."""
        rows = rows.to(own.device)
        kept = own.new_empty(len(rows), *own.shape[1:])
        kept[:, :, : self._steps] = own[rows, :, : self._steps]
        return kept

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self._body(
            input_ids=ids,
            position_ids=positions.to(self._device),
            use_cache=False,
            shared_prefix=self,
        )
        return output.last_hidden_state

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Attention of one layer: [rows, heads, q, size] -> [rows, q, heads, size]."""
        if self._prefilling is not None:
            self._remember(layer, self._prefilling, key, value)
            out = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scaling, enable_gqa=True
            )
            return out.transpose(1, 2).contiguous()
        keys, values = self._append(layer, key, value)
        prompt_keys, prompt_values = self._prompt[layer]
        rows, heads, _, size = query.shape
        shared = keys.shape[1]
        group = heads // shared
        own_query = (query * scaling).reshape(rows, shared, group, size)
        scores = torch.matmul(self._grid(own_query), prompt_keys.transpose(-1, -2))
        if self._bias is not None:
            scores += self._bias.to(scores.device)
        own_scores = self._grid(torch.matmul(own_query, keys.transpose(-1, -2)))
        weights = torch.cat([scores, own_scores], -1).softmax(-1, dtype=torch.float32)
        weights = weights.to(query.dtype)
        width = prompt_keys.shape[2]
        out = self._rows(torch.matmul(weights[..., :width], prompt_values), group)
        out = out + torch.matmul(self._rows(weights[..., width:], group), values)
        return out.reshape(rows, 1, heads, size)

    def _grid(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, kv heads, group, d] -> [prompts, kv heads, copies x group, d]."""
        shared, group, last = x.shape[1:]
        if not self._full:
            empty = x.new_zeros(self._prompts * self._width, shared, group, last)
            x = empty.index_copy_(0, self._slots.to(x.device), x)
        x = x.view(self._prompts, self._width, shared, group, last).transpose(1, 2)
        return x.reshape(self._prompts, shared, self._width * group, last)

    def _rows(self, x: torch.Tensor, group: int) -> torch.Tensor:
        """The way back: [prompts, kv heads, copies x group, d] -> [rows, kv heads, group, d]."""
        prompts, shared, _, last = x.shape
        x = x.view(prompts, shared, self._width, group, last).transpose(1, 2)
        x = x.reshape(prompts * self._width, shared, group, last)
        return x if self._full else x[self._slots.to(x.device)]

    def _remember(self, layer: int, part: slice, key: torch.Tensor, value: torch.Tensor) -> None:
        """The prompt keys and values of some prompts; behind them zeros, as their weight is 0."""
        if layer == len(self._prompt):
            shape = (self._prompts, key.shape[1], self._longest, key.shape[3])
            self._prompt.append((key.new_zeros(shape), value.new_zeros(shape)))
        keys, values = self._prompt[layer]
        keys[part, :, : key.shape[2]] = key
        values[part, :, : value.shape[2]] = value

    def _append(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write this step's column into the layer's cache; the filled part, new column included."""
        if layer == len(self._own):
            rows, shared, _, size = key.shape
            shape = (rows, shared, _BLOCK, size)
            self._own.append((key.new_empty(shape), value.new_empty(shape)))
        keys, values = self._own[layer]
        if self._steps == keys.shape[2]:
            keys = torch.cat([keys, torch.empty_like(keys)], 2)
            values = torch.cat([values, torch.empty_like(values)], 2)
            self._own[layer] = keys, values
        keys[:, :, self._steps] = key[:, :, 0]
        values[:, :, self._steps] = value[:, :, 0]
        end = self._steps + 1
        return keys[:, :, :end], values[:, :, :end]


def _parts(lengths: Sequence[int]) -> Iterator[slice]:
    """Neighbours that, padded to the longest of them, have at most _POSITIONS; at least one."""
    start = longest = 0
    for place, length in enumerate(lengths):
        longest = max(longest, length)
        if place > start and (place + 1 - start) * longest > _POSITIONS:
            yield slice(start, place)
            start, longest = place, length
    yield slice(start, len(lengths))


def _shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    shared_prefix: SharedPrefixDecoder,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    layer = int(module.layer_idx)
    return shared_prefix.attend(layer, query, key, value, scaling), None


AttentionInterface.register(ATTENTION, _shared_prefix_attention)


class CachedDecoder:
    """Left-padded prompts, the transformers cache repeated for every sample."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._device = model.device
        self._cache = DynamicCache(config=model.config)

    def prefill(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> torch.Tensor:
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        self._mask = mask.to(self._device)
        logits = self._forward(ids, positions)
        rows = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(copies))
        self._next = positions[:, -1:].to(self._device) + 1
        self.keep(rows)
        return logits

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], -1)
        logits = self._forward(tokens[:, None], self._next)
        self._next = self._next + 1
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        self._cache.batch_select_indices(rows.cpu())  # layers may lie on different devices
        rows = rows.to(self._device)
        self._mask = self._mask[rows]
        self._next = self._next[rows]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self._model(
            input_ids=ids.to(self._device),
            attention_mask=self._mask,
            position_ids=positions.to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]
