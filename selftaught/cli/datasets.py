"""``selftaught datasets``: upload, list, show, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from selftaught.cli.completion import datasets as ids
from selftaught.cli.gateway import DEFAULT_HOME, Home, Json, Limit, Url, at, connect, pages
from selftaught.cli.output import (
    AsJson,
    Yes,
    confirm,
    emit,
    err,
    fields,
    moment,
    note,
    rows,
    safe,
    show,
    size,
)

if TYPE_CHECKING:
    from selftaught.client import Client
    from selftaught.contracts import DatasetKind

app = typer.Typer(help="Uploaded rows: instructions, labelled pairs, ..", no_args_is_help=True)

Dataset = Annotated[str, typer.Argument(help="The dataset's id.", autocompletion=ids)]


@app.command()
def upload(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="JSONL, CSV, Parquet or text, gzipped or not."
        ),
    ],
    kind: Annotated[
        str, typer.Option(help="instructions, labelled, pairs or benchmark.")
    ] = "instructions",
    name: Annotated[str | None, typer.Option(help="For people; default: the file's.")] = None,
    column: Annotated[
        str | None, typer.Option(help="The field that has the instruction; default: by its name.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Which benchmark it is; default: by its fields.")
    ] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Upload a file. Every bad line is named with its field, and then nothing is kept."""
    with connect(url, home) as client:
        found = send(client, file, kind, name=name, column=column, benchmark=benchmark)
    show(found, as_json, found["id"])


@app.command("list")
def list_datasets(
    limit: Limit = 20, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Datasets, newest first."""
    with connect(url, home) as client:
        found = pages(client, at("datasets"), limit)
    if as_json:
        emit(found)
        return
    lines = [
        (
            one["id"],
            one["name"],
            one["benchmark"] or one["kind"],
            one["rows"],
            size(one["bytes"]),
            moment(one["created_at"]),
        )
        for one in found
    ]
    rows(("dataset", "name", "kind", "rows", "size", "uploaded"), lines)


@app.command("show")
def show_dataset(
    dataset: Dataset, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """One dataset: what it is, how many rows it has, and their hash."""
    with connect(url, home) as client:
        found = client.call("GET", at("datasets", dataset))
    if as_json:
        emit(found)
        return
    told = {**found, "bytes": size(found["bytes"]), "created_at": moment(found["created_at"])}
    fields(told.items())


@app.command()
def delete(
    dataset: Dataset,
    yes: Yes = False,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Delete a dataset's rows; refused while a running job needs them."""
    confirm(f"delete {dataset} for good?", yes)
    with connect(url, home) as client:
        client.call("DELETE", at("datasets", dataset))
    show({"id": dataset, "deleted": True}, as_json, f"deleted {dataset}")


def send(client: Client, file: Path, kind: str = "instructions", **named: str | None) -> Json:
    """Upload a file with a bar of its bytes; the dataset. `named`: name, column, benchmark."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        task = bars.add_task(f"uploading {safe(file.name)}", total=None)

        def sent(place: int, total: int) -> None:
            bars.update(task, completed=place, total=total)
            if place >= total:
                bars.update(task, description=f"checking {safe(file.name)}")

        made = client.datasets.upload(file, cast("DatasetKind", kind), **named, progress=sent)
    found = made.model_dump(mode="json")
    note(f"{found['rows']:,} rows of kind {found['benchmark'] or found['kind']}: {found['id']}")
    return found
