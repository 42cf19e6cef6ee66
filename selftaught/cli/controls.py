"""``selftaught controls``: is it the method that helps, or merely more training?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selftaught.cli import settings
from selftaught.cli.completion import recipe_names
from selftaught.cli.errors import Failed
from selftaught.cli.gateway import DEFAULT_HOME, Home, Url, connect
from selftaught.cli.output import AsJson, emit, note


def controls(
    instructions: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A file of instructions.")
    ],
    recipe: Annotated[
        str, typer.Option(help="A recipe's name, or a YAML file.", autocompletion=recipe_names)
    ] = "quickstart",
    labelled: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Labelled pairs to score on; default: held-out pairs."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Loop seeds.")] = "0,1,2",
    at_once: Annotated[int, typer.Option(min=1, help="Jobs at a time.")] = 2,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Run a recipe's loop and its controls on equal training tokens, and print a table.

    Controls: one round on all instructions, no labels, random labels, own majority. Every arm and
    loop seed is a job. The same call after an interruption goes on. Starts the stack of this home
    if no gateway is named and none runs.
    """
    import httpx

    from selftaught.contracts import Recipe
    from selftaught.controls import means, run
    from selftaught.registry import load_recipe

    if not all(seed.isdecimal() for seed in seeds.split(",")):
        raise typer.BadParameter("give numbers with commas between them", param_hint="--seeds")
    numbers = sorted(map(int, seeds.split(",")))
    named = settings.recipe(recipe)
    wanted = Recipe.model_validate(load_recipe(named) if isinstance(named, str) else named)
    try:
        with connect(url, home, start=True) as client:
            results, failures = run(
                client, home.resolve(), wanted, instructions, labelled, numbers, at_once, note
            )
    except httpx.TransportError as error:
        raise Failed(f"the gateway is away ({error})", "the same command goes on") from error
    if as_json:
        emit({"results": results, "failures": failures})
    else:
        for line in means(results):
            typer.echo(line)
    for name, why in failures.items():
        note(f"{name} did not succeed: {why}")
    raise typer.Exit(1 if failures else 0)
