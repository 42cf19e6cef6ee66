"""``selftaught jobs``: what can be asked of a job, at the gateway of the stack in this home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selftaught.client import Client, Json

app = typer.Typer(help="Cancel, pause, resume and retry jobs of any kind.", no_args_is_help=True)

Home = Annotated[
    Path,
    typer.Option("--home", envvar="SELFTAUGHT_HOME", help="Folder with the stack's state."),
]
DEFAULT_HOME = Path(".selftaught")
JobId = Annotated[str, typer.Argument(help="The job's id.")]


@app.command()
def cancel(job_id: JobId, home: Home = DEFAULT_HOME) -> None:
    """Stop a job for good; versions that it has published stay."""
    _ask(home, lambda client: client.cancel_job(job_id))


@app.command()
def pause(job_id: JobId, home: Home = DEFAULT_HOME) -> None:
    """Let a job stand still: workers let go of it within seconds."""
    _ask(home, lambda client: client.pause_job(job_id))


@app.command()
def resume(job_id: JobId, home: Home = DEFAULT_HOME) -> None:
    """Let a paused job go on where it stands."""
    _ask(home, lambda client: client.resume_job(job_id))


@app.command()
def retry(job_id: JobId, home: Home = DEFAULT_HOME) -> None:
    """Let a failed job go on from the stage that failed."""
    _ask(home, lambda client: client.retry_job(job_id))


def _ask(home: Path, what: Callable[[Client], Json]) -> None:
    """Print the job's id and state; a refusal, or no stack, ends the command with 1."""
    from selftaught.client import ApiError, Client
    from selftaught.stack import state

    record = state.read(home.resolve())
    if record is None or not record["running"]:
        typer.echo(f"no stack runs in {home}", err=True)
        raise typer.Exit(1)
    try:
        with Client(record["urls"]["gateway"]) as client:
            job = what(client)
    except ApiError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{job['id']} is {job['state']}")
