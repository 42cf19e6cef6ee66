"""``selftaught jobs``: start one, watch it, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selftaught.cli import settings
from selftaught.cli.completion import datasets as dataset_ids
from selftaught.cli.completion import jobs as ids
from selftaught.cli.completion import models, recipe_names
from selftaught.cli.datasets import send
from selftaught.cli.errors import INTERRUPTED, Failed
from selftaught.cli.evaluate import need_success
from selftaught.cli.gateway import DEFAULT_HOME, Home, Json, Limit, Url, at, connect, find, pages
from selftaught.cli.output import (
    AsJson,
    Yes,
    confirm,
    duration,
    emit,
    err,
    fields,
    moment,
    note,
    out,
    rows,
    show,
    size,
)

if TYPE_CHECKING:
    from rich.console import Console

    from selftaught.cli.watch import Item
    from selftaught.client import Client

app = typer.Typer(help="Jobs of any kind: start, watch, cancel, pause, ..", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", autocompletion=ids)]
FILE_TOO = "Id of an uploaded dataset, or a file to upload first."
PUZZLES = (
    "note: the shipped model knows letter puzzles and nothing else; if your prompts are of another "
    "kind, take a model of your own (docs/how-to/own-model.md)"
)


@app.command()
def create(
    dataset: Annotated[
        str, typer.Option(help=f"Instructions. {FILE_TOO}", autocompletion=dataset_ids)
    ],
    recipe: Annotated[
        str, typer.Option(help="A recipe's name, or a YAML file.", autocompletion=recipe_names)
    ] = "quickstart",
    change: settings.Set = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name under which versions are registered; default: the recipe's.",
            autocompletion=models,
        ),
    ] = None,
    labelled: Annotated[
        str | None,
        typer.Option(
            help=f"Labelled pairs that every version is scored on. {FILE_TOO}",
            autocompletion=dataset_ids,
        ),
    ] = None,
    watching: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Start a job: everything is checked, and nothing is queued if anything is wrong.

    With --watch and --json: a line of JSON for each event.
    """
    asked: Json = {"recipe": settings.recipe(recipe), "overrides": settings.tree(change)}
    asked |= {} if model is None else {"model": model}
    files = {"dataset": (dataset, "instructions"), "labelled_dataset": (labelled, "labelled")}
    given = {field: (one, kind) for field, (one, kind) in files.items() if one is not None}
    with connect(url, home) as client:
        if not all(one.startswith("ds_") for one, _ in given.values()):
            for one, _ in given.values():
                _need_file(one)
            settings.check(client, asked["recipe"], asked["overrides"], model)
        try:
            for field, (one, kind) in given.items():
                asked[field] = _dataset(client, one, kind)
            job = client.call("POST", at("jobs"), json=asked)
        except Exception:
            _tell_uploads(given, asked)
            raise
    if job["recipe"]["base_model"] == "smallworld":
        note(PUZZLES)
    if watching:
        note(f"started {job['id']}")
        follow_to_the_end(job["id"], url, home, as_json)
        return
    show(job, as_json, job["id"])
    note(f"watch it: selftaught jobs watch {job['id']}")


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Only loop, registration, evaluation, review or batch."),
    ] = None,
    limit: Limit = 20,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    with connect(url, home) as client:
        found = pages(client, at("jobs"), limit, state=state, kind=kind)
    if as_json:
        emit(found)
        return
    lines = [
        (one["id"], one["kind"], one["state"], one["model"], _far(one), moment(one["created_at"]))
        for one in found
    ]
    rows(("job", "kind", "state", "model", "done", "started"), lines)


@app.command("show")
def show_job(
    job_id: JobId, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """One job: its state, its iterations, and why it failed if it did.

    With --json: the job, with its `iterations` beside its other fields.
    """
    from selftaught.cli.picture import far, table
    from selftaught.cli.watch import look
    from selftaught.iterations import row_of

    with connect(url, home) as client:
        found = look(client, job_id)
    job = found.job
    if as_json:
        emit({**job, "iterations": found.iterations})
        return
    error = job["error"]
    fields(
        [
            ("job", job["id"]),
            ("kind", job["kind"]),
            ("state", job["state"]),
            ("model", job["model"]),
            ("recipe", job["recipe"].get("name")),
            ("dataset", job["dataset"]),
            ("labelled", job["labelled_dataset"]),
            ("iterations", _far(job)),
            ("progress", far(job)),
            ("started", moment(job["started_at"])),
            ("ended", moment(job["finished_at"]) if job["finished_at"] else None),
            ("error", f"{error['detail']} ({error['code']})" if error else None),
        ]
    )
    if scored := [row for row in map(row_of, found.iterations) if row]:
        out.print()
        out.print(table(scored))


@app.command()
def watch(
    job_id: JobId, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Follow a job to its end; a gateway that goes away on the way is waited for.

    Ctrl-C leaves the job running. Exits with 0 if it succeeded, with 1 if it failed or was
    cancelled. Without a terminal it prints lines; with --json, a line of JSON for each event.
    """
    follow_to_the_end(job_id, url, home, as_json)


@app.command()
def cancel(
    job_id: JobId, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Stop a job for good; versions that it has published stay."""
    _ask(job_id, "cancel", url, home, as_json)


@app.command()
def pause(
    job_id: JobId, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Let a job stand still: workers let go of it within seconds."""
    _ask(job_id, "pause", url, home, as_json)


@app.command()
def resume(
    job_id: JobId, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Let a paused job go on where it stands."""
    _ask(job_id, "resume", url, home, as_json)


@app.command()
def retry(
    job_id: JobId, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Let a failed job go on from the stage that failed."""
    _ask(job_id, "retry", url, home, as_json)


@app.command()
def delete(
    job_id: JobId,
    yes: Yes = False,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Delete a job that has ended, with all that it made but its versions."""
    confirm(f"delete {job_id} with its data and events for good?", yes)
    with connect(url, home) as client:
        client.call("DELETE", at("jobs", job_id))
    show({"id": job_id, "deleted": True}, as_json, f"deleted {job_id}")


@app.command()
def data(
    job_id: JobId, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Everything that a job's stages have published so far, for `download`."""
    with connect(url, home) as client:
        found = client.call("GET", at("jobs", job_id, "data"))["data"]
    if as_json:
        emit(found)
        return
    lines = [
        (one["iteration"], one["name"], one["kind"], one["rows"], size(one["bytes"]))
        for one in found
    ]
    rows(("iteration", "name", "kind", "rows", "size"), lines)


@app.command()
def download(
    job_id: JobId,
    iteration: Annotated[int, typer.Argument(min=0, help="Number of the iteration.")],
    name: Annotated[str, typer.Argument(help="curate, preferences, select_dropped, ..")],
    target: Annotated[
        Path | None,
        typer.Option("--out", "-o", dir_okay=False, help="Default: <name>-<iteration>.<form>."),
    ] = None,
    form: Annotated[
        Literal["jsonl", "parquet"], typer.Option("--format", help="jsonl or parquet.")
    ] = "jsonl",
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Write rows of a stage to a file, whole or not at all."""
    path = target or Path(f"{name}-{iteration}.{form}")
    with connect(url, home) as client, err.status("downloading"):
        client.jobs.get(job_id).download(iteration, name, path, form)
    written = path.stat().st_size
    show({"file": str(path), "bytes": written}, as_json, f"{path}: {size(written)}")


def follow_to_the_end(job_id: str, url: str | None, home: Path, as_json: bool) -> None:
    """Tell of a job until it has ended; raises Failed if it did not succeed, Exit at Ctrl-C."""
    from selftaught.cli.watch import PATIENCE
    from selftaught.client import Client

    ended = followed(
        lambda: Client(find(url, home), timeout=PATIENCE, retries=0), job_id, out, as_json
    )
    need_success(ended)
    note(f"{job_id} succeeded{_took(ended)}")
    if ended["kind"] == "loop":
        note(f"ask it: selftaught judge --model {ended['model']} INSTRUCTION A B")


def followed(
    connect: Callable[[], Client], job_id: str, console: Console, as_json: bool = False
) -> Json:
    """The job once it has ended, told of on the way: events as JSON, a live picture, or lines.

    Ctrl-C leaves it running and raises Exit.
    """
    from selftaught.cli.watch import Snapshot, follow

    tell, around = _teller(console, as_json)
    ended: Json = {}
    try:
        with around:
            for item in follow(connect, job_id):
                tell(item)
                ended = item.job if isinstance(item, Snapshot) else ended
    except KeyboardInterrupt:
        note(f"{job_id} goes on without you")
        note(f"watch it again: selftaught jobs watch {job_id}")
        note(f"stop it: selftaught jobs cancel {job_id}")
        raise typer.Exit(INTERRUPTED) from None
    return ended


def _teller(
    console: Console, as_json: bool
) -> tuple[Callable[[Item], None], AbstractContextManager[object]]:
    """Who tells of what happens, and what stands around it."""
    if console.is_terminal and not console.is_dumb_terminal and not as_json:
        from rich.live import Live

        from selftaught.cli.picture import Picture

        picture = Picture()
        return picture.apply, Live(picture, console=console, refresh_per_second=8)
    from selftaught.cli.lines import Lines

    return Lines(console, as_json).tell, nullcontext()


def _ask(job_id: str, what: str, url: str | None, home: Path, as_json: bool) -> None:
    """Ask it of the job; print the job's id and state."""
    with connect(url, home) as client:
        job = client.call("POST", at("jobs", job_id, what))
    show(job, as_json, f"{job['id']} is {job['state']}")


def _dataset(client: Client, given: str, kind: str) -> str:
    """A dataset's id: as given, or of the file that was given and is uploaded now."""
    if given.startswith("ds_"):
        return given
    return str(send(client, Path(given), kind)["id"])


def _need_file(given: str) -> None:
    """Raises Failed for what is neither a dataset's id nor a file."""
    if not given.startswith("ds_") and not Path(given).is_file():
        raise Failed(f"there is no file {given}, and a dataset's id begins with ds_")


def _tell_uploads(given: dict[str, tuple[str, str]], asked: Json) -> None:
    """Say which files are uploaded already, for the next try."""
    for field, (one, _) in given.items():
        if field in asked and asked[field] != one:
            option = "--dataset" if field == "dataset" else "--labelled"
            note(f"the upload stays as {asked[field]}: pass {option} {asked[field]} next time")


def _far(job: Json) -> str:
    """Iterations done, of how many; only a loop has more than one."""
    if job["kind"] != "loop":
        return "-"
    return f"{job['iterations_done']}/{job['recipe'].get('iterations', '?')}"


def _took(job: Json) -> str:
    """How long an ended job took."""
    import datetime as dt

    if not job["started_at"] or not job["finished_at"]:
        return ""
    began, ended = (dt.datetime.fromisoformat(job[key]) for key in ("started_at", "finished_at"))
    return f" after {duration((ended - began).total_seconds())}"
