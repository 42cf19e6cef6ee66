"""``selftaught verdicts``: the log of answers, and which version gave one."""

from __future__ import annotations

from typing import Annotated

import typer

from selftaught.cli.completion import models
from selftaught.cli.gateway import DEFAULT_HOME, Home, Limit, Url, connect
from selftaught.cli.output import AsJson, emit, fields, moment, note, rows

app = typer.Typer(
    help="Logged answers of /judge, where SELFTAUGHT_VERDICT_LOG is on.", no_args_is_help=True
)


@app.command("list")
def list_verdicts(
    model: Annotated[
        str | None, typer.Option(help="Only of versions of this model.", autocompletion=models)
    ] = None,
    version: Annotated[int | None, typer.Option(min=0, help="Only of this number.")] = None,
    limit: Limit = 20,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Answers, newest first."""
    with connect(url, home) as client:
        made = client.verdicts.list(model=model, version=version, limit=limit)
        found = [one.model_dump(mode="json") for one in made]
    if as_json:
        emit(found)
        return
    lines = [
        (
            one["id"],
            one["model"],
            one["alias"],
            one["verdict"],
            one["confidence"],
            moment(one["created_at"]),
        )
        for one in found
    ]
    rows(("verdict", "version", "asked as", "says", "confidence", "given"), lines)
    if not found and model is None and version is None:
        note("none is logged: the log is off unless SELFTAUGHT_VERDICT_LOG is hashes or texts")


@app.command("show")
def show_verdict(
    verdict: Annotated[str, typer.Argument(help="Its id, as `selftaught judge` ends with it.")],
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """One answer: which version gave it, and which job made that one."""
    with connect(url, home) as client:
        found = client.verdicts.get(verdict).model_dump(mode="json")
    if as_json:
        emit(found)
        return
    version = found["version"]
    fields(
        [
            ("verdict", found["id"]),
            ("given", moment(found["created_at"])),
            ("says", found["verdict"]),
            ("confidence", found["confidence"]),
            ("orders agree", found["orders_agree"]),
            ("version", found["model"]),
            ("asked as", found["alias"] or found["model"]),
            ("canary", found["canary"]),
            ("made by", found["job"]),
            ("sha256", version["sha256"]),
            ("parent", version["parent"]),
            ("template", found["template"]),
            ("request", found["request_id"]),
        ]
    )
