"""Picks tokens from logits with random numbers that belong to the row, not to the batch.

The random number of a row is a hash of (request seed, sample, step). So a completion depends on its
own request only: neither on what else is in the batch, nor on when other rows finish.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from selftaught.inference.protocol import Sampling

_HEAD = 16
"""Tokens looked at first: nearly always they hold the whole nucleus, and a sort costs more."""


def uniforms(
    seeds: npt.NDArray[np.uint64], samples: npt.NDArray[np.uint64], step: int
) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each row: splitmix64 finaliser over the three counters."""
    with np.errstate(over="ignore"):
        x = _mix(seeds + np.uint64(0x9E3779B97F4A7C15))
        x = _mix(x ^ (samples + np.uint64(0xD1B54A32D192ED03)))
        x = _mix(x ^ (np.uint64(step) + np.uint64(0x8CB92BA72F3D8DD7)))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def pick(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor) -> torch.Tensor:
    """One token for each row. logits [rows, vocabulary], uniform [rows] in [0, 1) -> [rows] int64.

    Order of the filters as in transformers and vLLM: temperature, top_k, then top_p on what top_k
    left, renormalised; the token that crosses top_p is kept. temperature 0 is greedy. Tokens are
    drawn by inverse CDF over the probabilities in descending order.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() / sampling.temperature
    vocabulary = scaled.shape[-1]
    limit = min(sampling.top_k or vocabulary, vocabulary)
    if limit <= _HEAD:
        best, tokens = scaled.topk(limit)
        return _draw(best.softmax(-1), tokens, sampling.top_p, uniform)
    head, tokens = scaled.topk(min(_HEAD, vocabulary))
    if sampling.top_k:
        total = scaled.topk(limit).values.logsumexp(-1, keepdim=True)
    else:
        total = scaled.logsumexp(-1, keepdim=True)
    share = (head - total).exp()
    needed = torch.full_like(uniform, sampling.top_p) if sampling.top_p < 1 else uniform
    short = share.sum(-1) <= needed
    picked = _draw(share, tokens, sampling.top_p, uniform)
    if bool(short.any()):
        best, tokens = scaled[short].topk(limit)
        picked[short] = _draw(best.softmax(-1), tokens, sampling.top_p, uniform[short])
    return picked


def _draw(
    share: torch.Tensor, tokens: torch.Tensor, top_p: float, uniform: torch.Tensor
) -> torch.Tensor:
    """Inverse CDF inside the nucleus; `share` [rows, k] descends and covers the nucleus."""
    reached = share.cumsum(-1)
    if top_p < 1:
        last = (reached < top_p).sum(-1, keepdim=True).clamp(max=share.shape[-1] - 1)
        target = uniform.unsqueeze(-1).to(reached.dtype) * reached.gather(-1, last)
    else:
        last = torch.full_like(tokens[:, :1], share.shape[-1] - 1)
        target = uniform.unsqueeze(-1).to(reached.dtype)
    place = (reached <= target).sum(-1, keepdim=True).minimum(last)
    return tokens.gather(-1, place).squeeze(-1)
