"""``selftaught backup``, ``restore`` and ``gc``: the operator's, straight on database and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from selftaught.cli.gateway import DEFAULT_HOME, Home
from selftaught.cli.output import AsJson, emit, note, say, show, size


def backup(
    target: Annotated[Path, typer.Argument(help="Folder to make.")],
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Write all rows of one moment, and every file that they name, to a new folder.

    The platform may run. The database is that of DATABASE_URL, or of this home's stack.
    """
    from selftaught.keeping.backup import backup as run

    with _platform(home):
        made = run(target.resolve())
    rows = sum(table.rows for table in made.tables.values())
    show(
        asdict(made),
        as_json,
        f"{target}: {rows} rows in {len(made.tables)} tables (schema {made.revision}), "
        f"{made.files} files, {size(made.bytes)}",
    )


def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `backup` made.")],
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Bring a backup into an empty database and this home, then migrate it to this version.

    Nothing else may run on them. Interrupted, the same command goes on.
    """
    from selftaught.keeping.restore import restore as run

    with _platform(home, at_rest=True):
        made = run(source.resolve(), note if as_json else say)
    show(asdict(made), as_json, f"restored: what {made.version} backed up at {made.created_at}")


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    safe_hours: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Keep files without a row that are younger; default: SELFTAUGHT_GC_SAFE_HOURS.",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Remove what is older than the settings keep it, and files that no row names."""
    from selftaught.keeping.collect import collect

    with _platform(home):
        report = collect(dry_run, None if safe_hours is None else safe_hours * 3600)
    if as_json:
        removed = {
            what: {"number": number, "bytes": size}
            for what, (number, size) in report.removed.items()
        }
        emit({"dry_run": dry_run, "removed": removed, "bytes": report.bytes})
        return
    for what, (number, freed) in report.removed.items():
        say(f"{what}: {number}" + (f", {size(freed)}" if freed else ""))
    say(f"{'would free' if dry_run else 'freed'} {size(report.bytes)}")


@contextmanager
def _platform(home: Path, at_rest: bool = False) -> Iterator[None]:
    """This process's settings point at the home and its database, started if it does not run.

    Raises BackupError.
    """
    from selftaught.keeping.backup import BackupError
    from selftaught.settings import get_settings
    from selftaught.stack import state
    from selftaught.stack.handle import Stack

    os.environ["SELFTAUGHT_HOME"] = str(home.resolve())
    if "DATABASE_URL" in os.environ:
        get_settings.cache_clear()
        yield
        return
    record = state.read(home.resolve())
    if record is not None and record["running"]:
        if at_rest:
            raise BackupError(f"a stack runs in {home}; stop it first: selftaught down")
        os.environ["DATABASE_URL"] = record["urls"]["database"]
        get_settings.cache_clear()
        yield
        return
    if not at_rest and record is None:
        raise BackupError(f"there is no stack in {home}, and DATABASE_URL is not set")
    with Stack(home, only={"postgres"}) as stack:
        os.environ["DATABASE_URL"] = stack.database_url
        get_settings.cache_clear()
        yield
