"""``selftaught keys``: the operator's commands for API keys, straight on the database."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

app = typer.Typer(
    help="API keys, on the database of DATABASE_URL or of the stack that runs in this home.",
    no_args_is_help=True,
)

Home = Annotated[
    Path,
    typer.Option("--home", envvar="SELFTAUGHT_HOME", help="Folder with the stack's state."),
]
DEFAULT_HOME = Path(".selftaught")
Result = TypeVar("Result")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who holds it; stands in records.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it allows: promote.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Make a key and print its secret, once: it is not kept anywhere."""
    from selftaught import keys

    wanted = [one for one in keys.SCOPES if one in (scope or [])]
    unknown = set(scope or []) - set(keys.SCOPES)
    if unknown or not name.strip() or len(name) > 100 or not name.isprintable():
        why = f"no such scope: {', '.join(sorted(unknown))}" if unknown else "give a plain name"
        raise typer.BadParameter(f"{why}; scopes: {', '.join(keys.SCOPES)}")
    _, secret = _with_database(home, lambda session: keys.create(session, name, wanted))
    typer.echo(secret)


@app.command("list")
def list_keys(home: Home = DEFAULT_HOME) -> None:
    """Every key: its secret's first characters, scopes, and when it was used or revoked."""
    from selftaught import keys

    for key in _with_database(home, keys.listed):
        scopes = ",".join(key.scopes) or "-"
        used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        revoked = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "good"
        typer.echo(f"{key.name}\t{key.prefix}...\t{scopes}\t{used}\t{revoked}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")], home: Home = DEFAULT_HOME
) -> None:
    """Make a key useless, at once and for good."""
    from selftaught import keys

    _with_database(home, lambda session: keys.revoke(session, name))
    typer.echo(f"revoked {name}")


def _with_database(home: Path, work: Callable[[Session], Result]) -> Result:
    """What `work` gives in a transaction; a refusal, or no database, ends the command with 1."""
    from sqlalchemy.exc import OperationalError

    from selftaught.database import transaction
    from selftaught.keys import KeyRefused
    from selftaught.stack import state

    if "DATABASE_URL" not in os.environ:
        record = state.read(home.resolve())
        if record is None or not record["running"]:
            typer.echo(f"no stack runs in {home}, and DATABASE_URL is not set", err=True)
            raise typer.Exit(1)
        os.environ["DATABASE_URL"] = record["urls"]["database"]
    try:
        with transaction() as session:
            return work(session)
    except KeyRefused as error:
        typer.echo(str(error), err=True)
    except OperationalError as error:
        typer.echo(f"no database: {error.orig}", err=True)
    raise typer.Exit(1)
