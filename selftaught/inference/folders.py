"""What a model's folder may hold: weights and settings, no code, nothing from elsewhere.

Looked at before any library reads the folder, so that what is refused does not depend on the
version of one. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftaught.inference.protocol import ModelLoadError

MAX_CONFIG_BYTES = 4 * 2**20
"""Of config.json and the like; tokenizer.json, the largest file of settings, is not read here."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack")
_KERNELS = ("attn_implementation", "experts_implementation")
"""Settings that name a function of the library, or a repository of kernels to be fetched and run"""


def check_folder(folder: Path) -> None:
    """Raise ModelLoadError, with the reason, for a base model that is not only data.

    Refused are: files that are links to outside the folder (a snapshot in the Hub's cache may link
    to its blobs), settings that name code (`auto_map`, kernels from a repository), weights that are
    no safetensors, and an index of weights, or an adapter, that names files elsewhere. Pickled
    weights beside safetensors are allowed, because nothing reads them.
    """
    said = f"base model {folder.name!r}"
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"{said} has no config.json")
    _check_links(folder, said)
    if (folder / "adapter_config.json").exists():
        raise ModelLoadError(f"{said} is an adapter (adapter_config.json), not a model")
    for path in sorted(folder.glob("*config.json")):
        for key, value in _entries(_settings(path, said)):
            if key == "auto_map":
                raise ModelLoadError(f"{said}: {path.name} names code of its own (auto_map)")
            if key.removeprefix("_").removesuffix("_internal") in _KERNELS and not _plain(value):
                raise ModelLoadError(f"{said}: {path.name} names kernels to be fetched ({key})")
    _check_weights(folder, said)


def _check_links(folder: Path, said: str) -> None:
    inside = [folder.resolve()]
    if folder.parent.name == "snapshots":
        inside.append((folder.parent.parent / "blobs").resolve())
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not any(path.resolve().is_relative_to(one) for one in inside):
            raise ModelLoadError(f"{said}: {path.name} is a link to outside the folder")


def _check_weights(folder: Path, said: str) -> None:
    weights = {path.name for path in folder.glob("*.safetensors")}
    pickled = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if not weights:
        others = f", only {pickled[0]}, which could run code when it is read" if pickled else ""
        raise ModelLoadError(f"{said} has no safetensors weights{others}")
    for path in sorted(folder.glob("*.safetensors.index.json")):
        named = _settings(path, said).get("weight_map")
        if not isinstance(named, dict):
            raise ModelLoadError(f"{said}: {path.name} has no weight_map")
        for file in named.values():
            if file not in weights:
                raise ModelLoadError(f"{said}: {path.name} names {file!r}, which is not here")


def _settings(path: Path, said: str) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG_BYTES and not path.name.endswith(".index.json"):
        raise ModelLoadError(f"{said}: {path.name} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{said}: {path.name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"{said}: {path.name} is not a JSON object")
    return found


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key at any depth, with its value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _plain(value: Any) -> bool:
    """A function of the library: one word, or one for each part of the model."""
    if isinstance(value, dict):
        return all(_plain(one) for one in value.values())
    return value is None or (isinstance(value, str) and value.replace("_", "").isalnum())
