"""Recipes: the named ones that ship with the platform, with every setting spelled out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from selftaught.contracts import BaseModelOut, Page, Recipe
from selftaught.http import problem_docs
from selftaught.registry import base_models, load_recipe, recipe_names
from services.api import problems

router = APIRouter(tags=["recipes"])


RecipeName = Annotated[str, Path(description="A recipe's name.", examples=["quickstart"])]


@router.get("/v1/recipes", responses=problem_docs(database=False))
def list_recipes() -> Page[Recipe]:
    """All named recipes, with every setting spelled out."""
    return Page(data=[_load(name) for name in recipe_names()], has_more=False)


@router.get("/v1/recipes/{name}", responses=problem_docs(404, database=False))
def get_recipe(name: RecipeName) -> Recipe:
    """One recipe, with every setting spelled out."""
    if name not in recipe_names():
        raise problems.not_found("recipe", name)
    return _load(name)


@router.get("/v1/base-models", responses=problem_docs(database=False))
def list_base_models() -> Page[BaseModelOut]:
    """All base models that the operator allows, by name."""
    return Page(data=[BaseModelOut(name=name) for name in sorted(base_models())], has_more=False)


def _load(name: str) -> Recipe:
    return Recipe.model_validate(load_recipe(name))
