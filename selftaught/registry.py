"""Base models an operator allows, and recipes, by name. Requests give names; paths never."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select

from selftaught import tenancy
from selftaught.contracts import LOCAL_INFERENCE, Recipe
from selftaught.database import transaction
from selftaught.database.tables import StoredTemplate
from selftaught.judging import (
    JudgeTemplate,
    LabelTemplate,
    ModifyTemplate,
    ScoreTemplate,
    Template,
    load_template,
    parse_template,
    template_names,
)
from selftaught.recipes import merge
from selftaught.settings import get_settings

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class UnknownName(Exception):
    """A recipe, base model, template or endpoint that does not exist here."""

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {what} {name!r}; known: {', '.join(known) or 'none'}")
        self.what, self.name, self.known = what, name, known


def base_models() -> dict[str, Path]:
    """Name -> folder: the shipped seed and every subfolder of the operator's folder."""
    known = {"smallworld": Path(str(files("seeds"))) / "smallworld"}
    settings = get_settings()
    folder = settings.models_dir or settings.home / "models"
    if folder.is_dir():
        known |= {
            p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and _NAME.fullmatch(p.name)
        }
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
    _check_inference(resolved.inference)
    for role in resolved.roles.values():
        _check_inference(role.inference)
        if role.inference in LOCAL_INFERENCE:
            base_model_path(role.base_model)
    judge_template(resolved.judge.template)
    modify_template(resolved.pair.template)
    _check_categories(resolved, label_template(resolved.select.label.template))
    return resolved


def _check_inference(name: str) -> None:
    known = ["local", "vllm", *sorted(get_settings().endpoints)]
    if name not in known:
        raise UnknownName("inference endpoint", name, known)


def _check_categories(recipe: Recipe, template: LabelTemplate) -> None:
    """A quota for a category that the label template does not know would never fill."""
    quotas = recipe.select.quotas
    for name in (quotas.categories or {}) if quotas is not None else {}:
        if name not in template.categories:
            raise UnknownName("category", name, list(template.categories))


def judge_template(name: str) -> JudgeTemplate:
    """A judge template, shipped or uploaded; raises UnknownName."""
    template = _template(name)
    if not isinstance(template, JudgeTemplate):
        raise UnknownName("judge template", name, _template_names("judge"))
    return template


def score_template(name: str) -> ScoreTemplate:
    """A score template, shipped or uploaded; raises UnknownName."""
    template = _template(name)
    if not isinstance(template, ScoreTemplate):
        raise UnknownName("score template", name, _template_names("score"))
    return template


def modify_template(name: str) -> ModifyTemplate:
    """A modify template, shipped or uploaded; raises UnknownName."""
    template = _template(name)
    if not isinstance(template, ModifyTemplate):
        raise UnknownName("modify template", name, _template_names("modify"))
    return template


def label_template(name: str) -> LabelTemplate:
    """A label template, shipped or uploaded; raises UnknownName."""
    template = _template(name)
    if not isinstance(template, LabelTemplate):
        raise UnknownName("label template", name, _template_names("label"))
    return template


def _template(name: str) -> Template | None:
    if "\0" in name:  # Postgres would refuse to look for it
        return None
    if name in template_names():
        return load_template(name)
    try:
        return _stored_template(tenancy.current(), name)
    except KeyError:
        return None


@lru_cache
def _stored_template(project: str | None, name: str) -> Template:
    """KeyError if there is none; kept, because a name never changes its content."""
    with tenancy.inside(project), transaction() as session:
        row = session.scalars(select(StoredTemplate).filter_by(name=name)).one_or_none()
        if row is None:
            raise KeyError(name)
        return parse_template(row.content)


def _template_names(kind: str) -> list[str]:
    with transaction() as session:
        query = select(StoredTemplate.name).where(StoredTemplate.kind == kind).limit(100)
        stored = session.scalars(query).all()
    return sorted([*(n for n in template_names() if load_template(n).kind == kind), *stored])
