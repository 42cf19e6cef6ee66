"""``selftaught backup``, ``restore`` and ``gc``: the operator's, straight on database and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path,
    typer.Option("--home", envvar="SELFTAUGHT_HOME", help="Folder with the stack's state."),
]
DEFAULT_HOME = Path(".selftaught")


def install(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, restore, gc):
        app.command()(command)


def backup(
    target: Annotated[Path, typer.Argument(help="Folder to make.")], home: Home = DEFAULT_HOME
) -> None:
    """Write all rows of one moment, and every file that they name, to a new folder.

    The platform may run. The database is that of DATABASE_URL, or of this home's stack.
    """
    from selftaught.keeping.backup import backup as run

    with _platform(home):
        made = run(target.resolve())
        rows = sum(table.rows for table in made.tables.values())
        typer.echo(
            f"{target}: {rows} rows in {len(made.tables)} tables (schema {made.revision}), "
            f"{made.files} files, {_size(made.bytes)}"
        )


def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `backup` made.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Bring a backup into an empty database and this home, then migrate it to this version.

    Nothing else may run on them. Interrupted, the same command goes on.
    """
    from selftaught.keeping.restore import restore as run

    with _platform(home, at_rest=True):
        made = run(source.resolve(), typer.echo)
        typer.echo(f"restored: what {made.version} backed up at {made.created_at}")


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
) -> None:
    """Remove what is older than the settings keep it, and files that no row names."""
    from selftaught.keeping.collect import collect

    with _platform(home):
        report = collect(dry_run, None if safe_hours is None else safe_hours * 3600)
    for what, (number, size) in report.removed.items():
        typer.echo(f"{what}: {number}" + (f", {_size(size)}" if size else ""))
    typer.echo(f"{'would free' if dry_run else 'freed'} {_size(report.bytes)}")


@contextmanager
def _platform(home: Path, at_rest: bool = False) -> Iterator[None]:
    """This process's settings point at the home and its database, started if it does not run.

    What can be said in a sentence ends the command with 1.
    """
    import psycopg
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from selftaught.keeping.backup import BackupError
    from selftaught.keeping.locks import Held
    from selftaught.settings import get_settings
    from selftaught.stack import state
    from selftaught.stack.handle import Stack
    from selftaught.stack.spec import StackError
    from selftaught.store import StoreError

    os.environ["SELFTAUGHT_HOME"] = str(home.resolve())
    try:
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
    except (BackupError, Held, StackError, StoreError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except ProgrammingError as error:
        typer.echo(f"not this version's schema ({error.orig}); run: selftaught migrate", err=True)
        raise typer.Exit(1) from None
    except (OperationalError, psycopg.OperationalError) as error:
        typer.echo(f"no database: {getattr(error, 'orig', error)}", err=True)
        raise typer.Exit(1) from None


def _size(size: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
