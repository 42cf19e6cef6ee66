"""LoRA adapters on a running server: load, check, unload.

An adapter's name is its version's id and is never used for anything else: a server that is told a
known name again may answer from stale blocks of its prefix cache.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx

log = logging.getLogger(__name__)

PROBE = list(range(1, 33))
"""Token ids whose log-probabilities an adapter must change; any model has so many tokens."""

LOAD_SECONDS = 600.0


class AdapterFailed(Exception):
    """The server does not serve the adapter as it should."""


def load(url: str, base: str, name: str, folder: Path) -> float:
    """Load an adapter and check it: listed, and a probe's log-probabilities are not the base's.

    Returns the largest difference (nats). Raises AdapterFailed; httpx.TransportError if the server
    is gone.
    """
    with httpx.Client(timeout=LOAD_SECONDS) as client:
        if name not in _names(client, url):
            body = {"lora_name": name, "lora_path": str(folder)}
            answer = client.post(f"{url}/v1/load_lora_adapter", json=body)
            if not answer.is_success:
                raise AdapterFailed(f"the server does not load it: {answer.text[:1000]}")
        if name not in _names(client, url):
            raise AdapterFailed("the server said that it loaded it, but does not list it")
        with_it, without = (_probe(client, url, model) for model in (name, base))
        difference = max(abs(a - b) for a, b in zip(with_it, without, strict=True))
    if difference == 0.0:
        raise AdapterFailed("it changes nothing: a probe's log-probabilities are the base's")
    return difference


def try_out(url: str, base: str, name: str, folder: Path) -> None:
    """Load an adapter of the kind that will be trained, check it, and forget it. Raises as `load`.

    Takes the place of the first wait as well: a server's first use of adapters is slow.
    """
    load(url, base, name, folder)
    unload(url, name)


def unload(url: str, name: str) -> None:
    """Forget an adapter that nobody asks any more."""
    answer = httpx.post(
        f"{url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=LOAD_SECONDS
    )
    if not answer.is_success:
        log.warning("adapter %s was not unloaded: %s", name, answer.text[:500])


def _names(client: httpx.Client, url: str) -> set[str]:
    return {entry["id"] for entry in client.get(f"{url}/v1/models").json()["data"]}


def _probe(client: httpx.Client, url: str, model: str) -> list[float]:
    """Log-probabilities of the probe's tokens, each after those before it."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": PROBE,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
    }
    answer = client.post(f"{url}/v1/completions", json=body)
    if not answer.is_success:
        raise AdapterFailed(f"it does not answer: {answer.text[:1000]}")
    places = answer.json()["choices"][0]["prompt_logprobs"][1:]
    return [place[str(token)]["logprob"] for place, token in zip(places, PROBE[1:], strict=True)]
