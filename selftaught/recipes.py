"""Settings of recipes: how they are put together, and what is said of one that there is not.

No service's package is needed here: the command line checks a recipe before it uploads anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from selftaught.contracts import Recipe


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge of two settings trees; `over` wins."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def what_is_wrong(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors of a recipe says; of an unknown setting, what may be meant."""
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    near = get_close_matches(".".join(map(str, error["loc"])), list(_paths(Recipe)), n=1)
    return "unknown setting" + (f"; did you mean {near[0]}?" if near else "")


def _paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every setting's path, train.steps and train, too."""
    for name, field in model.model_fields.items():
        path = above + (field.alias or name)
        yield path
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{path}.")
