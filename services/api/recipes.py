"""Recipes: the named ones that ship with the platform, with every setting spelled out."""

from __future__ import annotations

from fastapi import APIRouter

from selftaught.contracts import Page, Recipe
from selftaught.http import problem_docs
from selftaught.registry import load_recipe, recipe_names
from services.api import problems

router = APIRouter(prefix="/v1/recipes", tags=["recipes"])


@router.get("", responses=problem_docs())
def list_recipes() -> Page[Recipe]:
    """All named recipes."""
    return Page(data=[_load(name) for name in recipe_names()], has_more=False)


@router.get("/{name}", responses=problem_docs(404))
def get_recipe(name: str) -> Recipe:
    """One recipe."""
    if name not in recipe_names():
        raise problems.not_found("recipe", name)
    return _load(name)


def _load(name: str) -> Recipe:
    return Recipe.model_validate(load_recipe(name))
