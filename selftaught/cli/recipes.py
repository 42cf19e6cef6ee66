"""``selftaught recipes``: the settings that jobs begin with, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from selftaught.cli import settings
from selftaught.cli.completion import recipe_names
from selftaught.cli.gateway import DEFAULT_HOME, Home, Url, at, connect
from selftaught.cli.output import AsJson, emit, rows

app = typer.Typer(help="Named recipes: the settings that jobs begin with.", no_args_is_help=True)


@app.command("list")
def list_recipes(url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """All named recipes, in short."""
    with connect(url, home) as client:
        found = client.call("GET", at("recipes"))["data"]
    if as_json:
        emit(found)
        return
    lines = [
        (
            one["name"],
            one["base_model"],
            one["iterations"],
            one["pair"]["instructions"],
            one["judge"]["samples"],
            one["train"]["method"],
        )
        for one in found
    ]
    rows(("recipe", "base model", "iterations", "pairs", "samples", "training"), lines)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The recipe.", autocompletion=recipe_names)],
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """One recipe with every setting, as `--set` names them."""
    with connect(url, home) as client:
        found = client.call("GET", at("recipes", name))
    if as_json:
        emit(found)
        return
    rows(("setting", "value"), [(path, settings.shown(value)) for path, value in _flat(found)])


def _flat(tree: dict[str, object], above: str = "") -> list[tuple[str, object]]:
    """(path, value) of every setting."""
    found: list[tuple[str, object]] = []
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{above}{name}.")
        else:
            found.append((above + name, value))
    return found
