"""Opens engines and keeps the last few loaded models of this process.

torch is imported only when a local model is opened: the gateway never pays for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from selftaught.inference.openai import OpenAIEngine
from selftaught.inference.protocol import Engine, ModelLoadError

KEPT = 3
"""Loaded models per process; the one used longest ago makes room."""

_Key = tuple[str, str]
_engines: OrderedDict[_Key, Engine] = OrderedDict()
_lock = threading.Lock()  # held for a look into the dictionaries, never while a model loads
_loading: dict[_Key, threading.Lock] = {}


def open_engine(
    backend: str, model: str | Path, endpoints: Mapping[str, str] | None = None
) -> Engine:
    """An engine for a model, loaded once per process.

    `backend` "local": `model` is a folder with safetensors weights, or with a PEFT adapter, and
    transformers runs it here. Any other value names one of `endpoints` (name -> base URL, ends in
    /v1); `model` is the name that the endpoint knows, and its key is what
    :func:`selftaught.settings.endpoint_key` finds.

    The folder of a model version is immutable, so its path identifies it. Do not close engines from
    here; :func:`close_engines` does. Raises ModelLoadError.
    """
    key = (backend, str(model))
    with _lock:
        loading = _loading.setdefault(key, threading.Lock())
    with loading:  # a model is loaded once, however many ask; who asks for another does not wait
        with _lock:
            if key in _engines:
                _engines.move_to_end(key)
                return _engines[key]
        engine = _open(backend, model, endpoints or {})
        with _lock:
            _engines[key] = engine
            while len(_engines) > KEPT:
                _engines.popitem(last=False)
        return engine


def forget_engine(engine: Engine) -> None:
    """Drop a loaded model; its memory is free when those who use it have ended."""
    with _lock:
        for key in [key for key, kept in _engines.items() if kept is engine]:
            del _engines[key]


def close_engines() -> None:
    """Forget every loaded model, so that its memory is free (before training on the same GPU)."""
    with _lock:
        while _engines:
            _engines.popitem()[1].close()


def _open(backend: str, model: str | Path, endpoints: Mapping[str, str]) -> Engine:
    if backend == "local":
        from selftaught.inference.local import LocalEngine

        return LocalEngine(Path(model))
    if backend not in endpoints:
        raise ModelLoadError(f"no inference endpoint named {backend!r}")
    return OpenAIEngine(endpoints[backend], str(model), endpoint=backend)
