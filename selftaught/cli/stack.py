"""``selftaught up``, ``down``, ``status``, ``demo`` and ``migrate``: this machine's stack."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from selftaught.cli.errors import Failed
from selftaught.cli.gateway import DEFAULT_HOME, Home
from selftaught.cli.output import AsJson, emit, err, note, out, rows, say

if TYPE_CHECKING:
    from selftaught.stack.state import StackRecord


def up(
    home: Home = DEFAULT_HOME,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; return when ready.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(help="Gateway port. Default: 8080, or any free one if that is taken."),
    ] = None,
    evaluator_port: Annotated[
        int, typer.Option(help="Evaluator service port; 0: any free one.")
    ] = 0,
    evaluators: Annotated[
        int, typer.Option(min=1, help="Number of evaluator processes behind /judge.")
    ] = 1,
    generator_workers: Annotated[
        int, typer.Option(min=0, help="Number of generator worker processes.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Start Postgres, Redis and every service on this machine.

    DATABASE_URL and REDIS_URL, if set, name servers to use instead of starting them. With --json
    the record of what runs is printed, so it goes with --detach.
    """
    from selftaught.stack.handle import Stack
    from selftaught.stack.spec import AlreadyRunning
    from selftaught.stack.supervisor import Supervisor

    if as_json and not detach:
        raise typer.BadParameter("goes with --detach only", param_hint="--json")
    stack = Stack(
        home,
        port=port,
        evaluator_port=evaluator_port,
        evaluators=evaluators,
        generator_workers=generator_workers,
        tied=False,
    )
    try:
        if not detach:
            Supervisor(stack.config, report=partial(out.print, markup=False)).run()
            return
        with err.status("starting") as line:
            stack.start(lambda record: line.update(_progress(record)))
    except AlreadyRunning as error:
        raise Failed(str(error), f"see: selftaught status --home {home}") from error
    if as_json:
        emit(stack.record)
    else:
        _processes(stack.record)
        say(f"ready: {stack.gateway_url}  (stop with: selftaught down)")


def down(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Stop the stack of this home and wait until everything has ended."""
    from selftaught.stack.handle import stop_home

    with err.status("stopping"):
        stopped = stop_home(home.resolve())
    if as_json:
        emit({"stopped": stopped})
    else:
        say("stopped" if stopped else f"no stack runs in {home}")


def status(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show what runs, and where. Exits with 1 if no stack runs in this home."""
    from selftaught.stack import state

    record = state.read(home.resolve())
    running = record is not None and record["running"]
    if as_json:
        emit(record or {"running": False})
    elif record is None or not running:
        say(f"no stack runs in {home}")
        if record is not None and record["error"]:
            say(record["error"])
    else:
        _processes(record)
    if not running:
        raise typer.Exit(1)


def demo(
    home: Home = DEFAULT_HOME,
    recipe: Annotated[str, typer.Option(help="Named recipe of the job.")] = "quickstart",
    as_json: AsJson = False,
) -> None:
    """Run one whole job on the shipped small world, watch it, and judge a pair.

    Starts the stack of this home if it does not run; it keeps running.
    """
    import json

    from selftaught.demo import report_path, run

    code = run(home.resolve(), recipe, err if as_json else out)
    if as_json and code == 0:
        emit(json.loads(report_path(home.resolve()).read_text()))
    raise typer.Exit(code)


def migrate() -> None:
    """Bring the database of DATABASE_URL to this version's schema."""
    import subprocess

    import alembic  # noqa: F401 (the command below needs it; without it this says so)

    from selftaught.stack.services import migrations

    raise typer.Exit(subprocess.run(migrations().command, check=False).returncode)


def _progress(record: StackRecord) -> str:
    return "starting: " + ", ".join(process["name"] for process in record["processes"])


def _processes(record: StackRecord) -> None:
    note(f"stack: {record['state']}")
    titles = ("process", "pid", "state", "restarts", "url")
    rows(
        titles,
        [
            (one["name"], one["pid"], one["state"], one["restarts"], one["url"] or "")
            for one in record["processes"]
        ],
    )
