"""``selftaught models``: names, versions and aliases; and ``register``, ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selftaught.cli.completion import models as names
from selftaught.cli.evaluate import VERSION, need_success
from selftaught.cli.gateway import DEFAULT_HOME, Home, Json, Limit, Url, at, connect, pages
from selftaught.cli.output import AsJson, Yes, confirm, emit, err, fields, moment, rows, say, show

if TYPE_CHECKING:
    from selftaught.client import Client

app = typer.Typer(help="Models: versions, and the aliases that name them.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="The model's name.", autocompletion=names)]
Exact = Annotated[
    str, typer.Argument(metavar="NAME:NUMBER", help="The version.", autocompletion=names)
]
Alias = Annotated[str, typer.Option(help="The alias to move.")]


@app.command("list")
def list_models(
    limit: Limit = 100, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Models by name, with what their aliases mean now."""
    with connect(url, home) as client:
        found = pages(client, at("models"), limit, by="name")
    if as_json:
        emit(found)
        return
    lines = [(one["name"], one["versions"], _aliases(one["aliases"])) for one in found]
    rows(("model", "versions", "aliases"), lines)


@app.command()
def versions(
    model: Model,
    limit: Limit = 20,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Versions of a model, newest first."""
    with connect(url, home) as client:
        found = pages(client, at("models", model, "versions"), limit, by="number")
    if as_json:
        emit(found)
        return
    lines = [
        (
            one["ref"],
            ",".join(one["aliases"]) or "-",
            _accuracy(one, "heldout"),
            _accuracy(one, "labelled"),
            one["job"],
            moment(one["created_at"]),
        )
        for one in found
    ]
    rows(("version", "aliases", "held-out", "labelled", "job", "made"), lines)


@app.command("show")
def show_version(
    version: Annotated[str, typer.Argument(help=VERSION, autocompletion=names)],
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """One version: how good it is and where it came from. A name alone means its `latest`."""
    with connect(url, home) as client:
        found = find(client, version)
    if as_json:
        emit(found)
        return
    lineage = found["lineage"]
    fields(
        [
            ("version", found["ref"]),
            ("aliases", ", ".join(found["aliases"]) or "none"),
            ("parent", found["parent"] or "none: a base model as it is"),
            ("job", found["job"]),
            ("iteration", found["iteration"]),
            ("made", moment(found["created_at"])),
            ("sha256", found["sha256"]),
            ("recipe", (lineage.get("recipe") or {}).get("name")),
            *((f"strict accuracy, {name}", _accuracy(found, name)) for name in found["metrics"]),
        ]
    )


@app.command()
def aliases(
    model: Model, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Every alias of a model, with its last moves."""
    with connect(url, home) as client:
        found = client.call("GET", at("models", model, "aliases"))["data"]
    if as_json:
        emit(found)
        return
    lines = [
        (
            one["alias"],
            move["version"],
            move["revision"],
            moment(move["created_at"]),
            move["reason"],
        )
        for one in found
        for move in one["history"][:5]
    ]
    rows(("alias", "version", "revision", "moved", "reason"), lines)


@app.command()
def promote(
    version: Exact,
    alias: Alias = "latest",
    force: Annotated[
        bool, typer.Option("--force", help="Even if a rule fails; needs a key and a reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Move an alias to a version if it passes the gate; exits with 1 if it does not."""
    model, number = exact(version)
    asked = {"alias": alias, "force": force, "reason": reason}
    with connect(url, home) as client:
        found = client.call("POST", at("models", model, "versions", number, "promote"), json=asked)
    if as_json:
        emit(found)
        return
    for finding in found["findings"]:
        say(f"{finding['rule']}: {finding['detail']}")
    how = "forced" if found["forced"] else "promoted"
    say(f"{found['version']} {how} to {alias}")


@app.command()
def rollback(
    model: Model,
    alias: Annotated[str, typer.Option(help="The alias to put back.")] = "latest",
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Put an alias back to the version before its present one."""
    with connect(url, home) as client:
        found = client.call("POST", at("models", model, "aliases", alias, "rollback"))
    show(found, as_json, f"{model}:{alias} is {found['version']} again")


@app.command()
def delete(
    version: Exact,
    yes: Yes = False,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Delete a version: its weights and everything about it, unless something needs it."""
    model, number = exact(version)
    confirm(f"delete {version} with its weights for good?", yes)
    with connect(url, home) as client:
        client.call("DELETE", at("models", model, "versions", number))
    show({"ref": version, "deleted": True}, as_json, f"deleted {version}")


def register(
    base_model: Annotated[str, typer.Argument(help="A folder in <home>/models, or 'smallworld'.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the same.")] = None,
    template: Annotated[str, typer.Option(help="Judge template.")] = "mt-bench",
    max_tokens: Annotated[int, typer.Option(help="Length limit of a judgment.")] = 1024,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Make a base model a version as it is, to be evaluated or to judge.

    Starts the stack of this home if no gateway is named and none runs.
    """
    from selftaught.evaluate import register as run

    options = {"name": name, "template": template, "max_tokens": max_tokens}
    with connect(url, home, start=True) as client:
        job = run(client, {"base_model": base_model, **options})
    need_success(job)
    show(job, as_json, job["version"])


def export(
    version: Annotated[str, typer.Argument(help=VERSION, autocompletion=names)],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="Its files as they are, over HTTP: an adapter for PEFT."),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            help="With --adapter: what it shall name as its base, a folder or hub's name."
        ),
    ] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Write a version as whole weights (safetensors), its adapter merged into the base.

    Starts the stack of this home if no gateway is named and none runs. The version's folder must be
    in this home, unless its files are taken as they are (--adapter).
    """
    if base is not None and not adapter:
        raise typer.BadParameter("only with --adapter", param_hint="--base")
    with connect(url, home, start=True) as client:
        found = find(client, version)
        if adapter:
            try:
                client.models.download(found["model"], found["number"], out, base=base)
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint="--base") from error
    if not adapter:
        from selftaught.export import export as run

        with err.status("merging"):
            run(found, home.resolve() / "versions", out.resolve())
    told = {"version": found["ref"], "folder": str(out.resolve())}
    show(told, as_json, f"{found['ref']} -> {out}")


def find(client: Client, name: str) -> Json:
    """The version that `name`, `name:alias` or `name:number` means (the default alias: latest)."""
    model, _, which = name.partition(":")
    which = which or "latest"
    if not which.isdecimal():
        alias = client.call("GET", at("models", model, "aliases", which))
        which = alias["version"].rpartition(":")[2]
    return client.call("GET", at("models", model, "versions", which))


def exact(version: str) -> tuple[str, int]:
    """Name and number of "name:number"; anything else is a usage error."""
    model, _, number = version.rpartition(":")
    if not model or not (number.isascii() and number.isdigit()):
        raise typer.BadParameter(f"{version!r} is not name:number")
    return model, int(number)


def _aliases(found: dict[str, str]) -> str:
    return ", ".join(f"{name} -> {ref.rpartition(':')[2]}" for name, ref in found.items()) or "-"


def _accuracy(version: Json, name: str) -> str | None:
    metrics = version["metrics"].get(name)
    return None if metrics is None else f"{metrics['strict_accuracy']:.4f}"
