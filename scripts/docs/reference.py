"""The other pages that are written from code: command line, settings, recipes, Python client."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer.main
import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.docs.schemas import block, cell, fields

_ANNOTATION = re.compile(r"(: |-> )'([^']*)'")


def commands() -> str:
    """Every command of `selftaught`, with its arguments and options."""
    from selftaught.cli import app

    root = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "Written from the commands themselves; `selftaught COMMAND --help` says the same.",
        "",
    ]
    return "\n".join(lines + _command(root, ["selftaught"]))


def _command(command: Any, path: list[str]) -> list[str]:
    """`command` and its parameters are of the click that typer brings."""
    context = command.context_class(command, info_name=" ".join(path))
    lines: list[str] = []
    if len(path) > 1:
        lines += [f"{'#' * min(len(path), 4)} {' '.join(path)}", ""]
    if command.help:
        lines += [inspect.cleandoc(command.help.replace("\b", "")), ""]
    inner = getattr(command, "commands", None)
    if inner:
        for name, one in inner.items():
            if not one.hidden:
                lines += _command(one, [*path, name])
        return lines
    lines += [*block("text", " ".join([*path, *command.collect_usage_pieces(context)])), ""]
    rows = [row for one in command.params if (row := _parameter(one, context))]
    if rows:
        lines += ["| | default | meaning |", "|---|---|---|", *rows, ""]
    return lines


def _parameter(one: Any, context: Any) -> str | None:
    if getattr(one, "hidden", False) or one.name == "help":
        return None
    metavar, names = one.make_metavar(context), ", ".join([*one.opts, *one.secondary_opts])
    if one.param_type_name == "option":
        shown, meaning = names if one.is_flag else f"{names} {metavar}", one.help or ""
    else:
        shown, meaning = metavar, str(getattr(one, "help", None) or "")
    if one.envvar:
        meaning = f"{meaning} (variable `{one.envvar}`)"
    told = "required" if one.required else ""
    if one.default not in (None, False, ()) and not callable(one.default):
        told = f"`{one.default}`"
    return f"| `{shown.replace('|', '/')}` | {told} | {cell(meaning)} |"


def settings() -> str:
    """Every environment variable of the services."""
    from selftaught.settings import Settings

    lines = [
        "# Settings",
        "",
        "Environment variables of the services, as `selftaught/settings.py` reads them. Those of "
        "a container are in the compose file's `.env` ([operations](../operations.md)); what "
        "OpenTelemetry, S3 and CUDA read themselves is not listed here.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        variable = str(field.validation_alias or f"SELFTAUGHT_{name.upper()}")
        meaning = (field.description or "").removeprefix(f"{variable}: ")
        lines.append(f"| `{variable}` | {_default(field)} | {cell(meaning)} |")
    return "\n".join([*lines, ""])


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "" if field.default_factory is None else "see there"
    if field.default is None or field.default == "":
        return ""
    return f"`{cell(str(field.default))}`"


def recipe() -> str:
    """Every setting of a recipe, and the shipped recipes."""
    from selftaught.contracts import Recipe
    from selftaught.registry import load_recipe, recipe_names

    schema = Recipe.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = schema.get("$defs", {})
    lines = [
        "# Recipes",
        "",
        "All settings of a job. A job names a recipe and overrides some of its settings, as in "
        '`"overrides": {"train": {"steps": 10}}` or `--set train.steps=10`. '
        "[training](../training.md), [selection](../selection.md) and "
        "[promotion](../promotion.md) say more of some of them.",
        "",
        *fields(schema, _here),
        "",
    ]
    for name, part in sorted(definitions.items()):
        lines += [f"## {name} {{#{name.lower()}}}", "", part.get("description", ""), ""]
        if part.get("properties"):
            lines += [*fields(part, _here), ""]
    lines += ["## The shipped ones", ""]
    for name in recipe_names():
        lines += [
            f"### {name}",
            "",
            *block("yaml", yaml.safe_dump(load_recipe(name), sort_keys=False)),
            "",
        ]
    return "\n".join(lines)


def _here(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def client() -> str:
    """The Python client: what it can be asked for, and what jobs, batches and evaluations do."""
    from selftaught.client import ApiError, Batch, Client, Evaluation, Job, JobFailed

    lines = [
        "# Python client",
        "",
        "All methods of the synchronous client ([how to use it](../client.md)). `AsyncClient` has "
        "the same, to be awaited; its lists are read with `async for`.",
        "",
    ]
    with Client("http://127.0.0.1:8080") as one:
        resources = {name: part for name, part in vars(one).items() if not name.startswith("_")}
    lines += ["## Client", "", _doc(Client), "", *_methods(Client)]
    for name, part in resources.items():
        if type(part).__module__.startswith("selftaught.client."):
            lines += [f"## client.{name}", "", *_methods(type(part))]
    for handle in (Job, Batch, Evaluation):
        lines += [f"## {handle.__name__}", "", _doc(handle), "", *_methods(handle)]
    for error in (ApiError, JobFailed):
        lines += [f"## {error.__name__}", "", _doc(error), ""]
    return "\n".join(lines)


def _methods(one: type) -> list[str]:
    """Those of the class and of the client's classes that it is made of."""
    lines: list[str] = []
    for name, method in inspect.getmembers(one, inspect.isfunction):
        if name.startswith("_") or not method.__module__.startswith("selftaught.client"):
            continue
        signature = _ANNOTATION.sub(r"\1\2", str(inspect.signature(method)))
        signature = signature.replace("(self, ", "(").replace("(self)", "()")
        lines += [*block("python", f"{name}{signature}"), "", _doc(method), ""]
    return lines


def _doc(one: Any) -> str:
    return (inspect.getdoc(one) or "").replace("::\n", "\n").replace("<", "&lt;")
