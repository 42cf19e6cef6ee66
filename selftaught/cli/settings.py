"""Recipes and changes of settings as they are given on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selftaught.cli.errors import Failed
from selftaught.cli.gateway import at

if TYPE_CHECKING:
    from selftaught.client import Client

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Another value for a setting, e.g. train.lora.rank=16; may be repeated."
    ),
]


def tree(changes: list[str] | None) -> dict[str, Any]:
    """The settings that "train.lora.rank=16" and so on mean together.

    A value is JSON, and what is no JSON is text.
    """
    found: dict[str, Any] = {}
    for change in changes or ():
        path, equals, value = change.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise typer.BadParameter(f"{change!r} is not NAME=VALUE", param_hint="--set")
        place = found
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(
                    f"{change!r}: {name} has a value already", param_hint="--set"
                )
        place[names[-1]] = _value(value)
    return found


def recipe(given: str) -> str | dict[str, Any]:
    """A recipe's name as it is; all settings of a YAML (or JSON) file."""
    file = Path(given)
    if not file.is_file():
        if file.suffix in (".yaml", ".yml", ".json"):
            raise Failed(f"there is no file {given}")
        return given
    import yaml

    found = yaml.safe_load(file.read_bytes())
    if not isinstance(found, dict):
        raise Failed(f"{given} is no recipe: its settings are to be names with values")
    return found


def check(
    client: Client,
    recipe: str | dict[str, Any],
    overrides: dict[str, Any],
    model: str | None = None,
) -> None:
    """See that the settings can be right, before anything is uploaded for them.

    Raises ApiError for an unknown recipe, Failed for an unknown base model, ValidationError. Other
    names inside a recipe (templates, endpoints) the gateway alone looks up.
    """
    from selftaught.contracts import JobIn, Recipe
    from selftaught.recipes import merge

    JobIn(dataset="ds_", model=model)
    raw = client.call("GET", at("recipes", recipe)) if isinstance(recipe, str) else recipe
    wanted = Recipe.model_validate(merge(raw, overrides)).base_model
    known = [one.name for one in client.recipes.base_models()]
    if wanted not in known:
        raise Failed(
            f"unknown base model {wanted!r}; known: {', '.join(known)}",
            "a folder in the gateway's <home>/models is one: docs/how-to/own-model.md",
        )


def shown(value: Any) -> str:
    """A value as `--set` takes it."""
    plain = isinstance(value, str) and _value(value) == value
    return value if plain else json.dumps(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
