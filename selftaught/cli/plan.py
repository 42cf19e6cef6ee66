"""``selftaught plan``: what memory a recipe needs, before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from selftaught.cli import settings
from selftaught.cli.completion import recipe_names
from selftaught.cli.output import AsJson, emit, figures, note, say

if TYPE_CHECKING:
    from rich.table import Table

    from selftaught.memory import Phase, Plan


def plan(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe's name, or a YAML file.", autocompletion=recipe_names),
    ],
    gpu_memory: Annotated[
        float, typer.Option(min=1, help="Memory of a GPU, in GB as it is sold.")
    ] = 80,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs there are; default: as the recipe asks for.")
    ] = None,
    change: settings.Set = None,
    as_json: AsJson = False,
) -> None:
    """Show what memory a recipe needs on each GPU, before anything is started.

    Exits with 1 if something does not fit. Needs no GPU, no model and no running stack. With --json
    sizes are bytes.
    """
    from selftaught.architectures import architecture
    from selftaught.contracts import Recipe
    from selftaught.memory import make_plan
    from selftaught.recipes import merge
    from selftaught.registry import load_recipe

    changed = settings.tree(change)
    named = settings.recipe(recipe)
    raw = merge(load_recipe(named) if isinstance(named, str) else named, changed)
    found = make_plan(Recipe.model_validate(raw), architecture, gpu_memory)
    count = gpus or found.gpus
    refusals = found.refusals(count)
    if as_json:
        emit(found.as_json(count))
    else:
        figures(_table(found))
        for line in found.elsewhere:
            say(line)
        if not refusals:
            say(f"{found.recipe} fits on {count} x {gpu_memory:g} GB.")
    for line in refusals:
        note(line)
    raise typer.Exit(1 if refusals else 0)


def _table(plan: Plan) -> Table:
    """A column for each phase, a row for each part (GiB on each GPU)."""
    from rich.table import Table

    from selftaught.memory import GIB, PARTS

    def gib(size: int | None) -> str:
        return "" if size is None else f"{size / GIB:.1f}"

    def cached(phase: Phase) -> tuple[str, str, str]:
        if phase.cache is None:
            return "", "", ""
        return (
            f"{phase.cache.token / 1024:,.0f} KiB",
            f"{phase.cache.room:,}",
            f"{phase.cache.at_once:.1f} x {phase.cache.longest:,}",
        )

    table = Table("GiB on each GPU", title=f"{plan.recipe} on GPUs of {plan.gpu_memory:g} GB")
    for phase in plan.phases:
        table.add_column(phase.name, justify="right")
    table.add_row("model", *(phase.model for phase in plan.phases))
    table.add_row("GPUs", *(str(phase.gpus) for phase in plan.phases), end_section=True)
    parts = {name for phase in plan.phases for name in phase.parts}
    for part in (name for name in PARTS if name in parts):
        table.add_row(part, *(gib(phase.parts.get(part)) for phase in plan.phases))
    table.add_section()
    table.add_row("needed", *(gib(phase.needed) for phase in plan.phases))
    table.add_row("available", *(gib(phase.available) for phase in plan.phases))
    table.add_row("fits", *("yes" if phase.fits else "no" for phase in plan.phases))
    table.add_row(
        "fewest such GPUs",
        *(str(phase.fewest or "none") for phase in plan.phases),
        end_section=True,
    )
    rows = zip(*(cached(phase) for phase in plan.phases), strict=True)
    names = ("KV cache of a token", "tokens in the KV cache", "sequences at once")
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *row)
    return table
