"""Base models an operator allows, and recipes, by name. Requests give names; paths never."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from selftaught.contracts import Recipe
from selftaught.judging import (
    load_judge_template,
    load_label_template,
    load_modify_template,
    template_names,
)
from selftaught.settings import get_settings

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class UnknownName(Exception):
    """A recipe, base model, template or endpoint that does not exist here."""

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {what} {name!r}; known: {', '.join(known) or 'none'}")
        self.what, self.name, self.known = what, name, known


def base_models() -> dict[str, Path]:
    """Name -> folder: the shipped seed and every subfolder of SELFTAUGHT_MODELS_DIR."""
    known = {"smallworld": Path(str(files("seeds"))) / "smallworld"}
    folder = get_settings().models_dir
    if folder is not None and folder.is_dir():
        known |= {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and _NAME.match(p.name)}
    return known


def base_model_path(name: str) -> Path:
    """The folder of a base model; raises UnknownName."""
    known = base_models()
    if name not in known:
        raise UnknownName("base model", name, sorted(known))
    return known[name].resolve()


def recipe_names() -> list[str]:
    return sorted(
        p.name.removesuffix(".yaml") for p in files("recipes").iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(name: str) -> dict[str, Any]:
    """The raw settings of a named recipe; raises UnknownName."""
    if name not in recipe_names():
        raise UnknownName("recipe", name, recipe_names())
    data = yaml.safe_load((files("recipes") / f"{name}.yaml").read_text())
    return {"name": name, **data}


def resolve_recipe(recipe: str | dict[str, Any], overrides: dict[str, Any]) -> Recipe:
    """Named or inline recipe with overrides merged in, validated.

    Raises UnknownName for names that do not exist here and pydantic's ValidationError for
    settings that are wrong.
    """
    raw = load_recipe(recipe) if isinstance(recipe, str) else recipe
    resolved = Recipe.model_validate(merge(raw, overrides))
    base_model_path(resolved.base_model)
    endpoints = get_settings().endpoints
    if resolved.inference != "local" and resolved.inference not in endpoints:
        raise UnknownName("inference endpoint", resolved.inference, ["local", *sorted(endpoints)])
    for kind, load, name in (
        ("judge template", load_judge_template, resolved.judge.template),
        ("modify template", load_modify_template, resolved.pair.template),
        ("label template", load_label_template, resolved.select.label.template),
    ):
        try:
            load(name)
        except KeyError:
            raise UnknownName(kind, name, template_names()) from None
    _check_categories(resolved)
    return resolved


def _check_categories(recipe: Recipe) -> None:
    """A quota for a category that the label template does not know would never fill."""
    quotas = recipe.select.quotas
    known = load_label_template(recipe.select.label.template).categories
    for name in (quotas.categories or {}) if quotas is not None else {}:
        if name not in known:
            raise UnknownName("category", name, list(known))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge of two settings trees; `over` wins."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


__all__ = [
    "UnknownName",
    "base_model_path",
    "base_models",
    "load_recipe",
    "merge",
    "recipe_names",
    "resolve_recipe",
]
