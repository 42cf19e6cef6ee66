"""``selftaught keys``: the operator's commands for API keys, straight on the database."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selftaught.cli.database import DEFAULT_PROJECT, first, with_database
from selftaught.cli.gateway import DEFAULT_HOME, Home
from selftaught.cli.output import AsJson, emit, rows, say, show

if TYPE_CHECKING:
    from selftaught.database.tables import ApiKey

app = typer.Typer(
    help="API keys, on the database of DATABASE_URL or of the stack that runs in this home.",
    no_args_is_help=True,
)

Project = Annotated[str, typer.Option(help="Whose key.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who holds it; stands in records.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write, judge, promote or admin; may be repeated.  [required]"),
    ] = None,
    days: Annotated[float | None, typer.Option(help="Good for so long; else for ever.")] = None,
    project: Project = DEFAULT_PROJECT,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, once: it is not kept anywhere."""
    from pydantic import ValidationError

    from selftaught import keys
    from selftaught.contracts import KeyIn

    if not scope:
        raise typer.BadParameter(
            "give at least one --scope: read, write, judge, promote, admin", param_hint="--scope"
        )
    try:
        body = KeyIn.model_validate({"name": name, "scopes": scope, "expires_in_days": days})
    except ValidationError as error:
        raise typer.BadParameter(first(error)) from error
    lifetime = None if days is None else dt.timedelta(days=days)
    made, secret = with_database(
        home,
        lambda session: keys.create(session, body.name, body.scopes, lifetime),
        project,
        told=("keys create", body.name),
    )
    if as_json:
        emit({**_shown(made), "secret": secret})
    else:
        say(secret)


@app.command("list")
def list_keys(
    project: Project = DEFAULT_PROJECT, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """A project's keys: first characters, scopes, and when each was used or revoked."""
    from selftaught import keys

    found = with_database(home, keys.listed, project)
    if as_json:
        emit([_shown(key) for key in found])
        return
    rows(("name", "secret", "scopes", "used", "good"), [_line(key) for key in found])


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name or id.")],
    project: Project = DEFAULT_PROJECT,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Make a key useless, for good; every gateway knows within two seconds."""
    from selftaught import keys

    told = ("keys revoke", name)
    gone = with_database(home, lambda session: keys.revoke(session, name), project, told)
    show(_shown(gone) if as_json else None, as_json, f"revoked {name}")


def _line(key: ApiKey) -> tuple[str, ...]:
    used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
    until = f"good until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "good"
    good = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else until
    return key.name, f"{key.prefix}...", ",".join(key.scopes) or "-", used, good


def _shown(key: ApiKey) -> dict[str, Any]:
    """As GET /v1/keys shows it."""
    from selftaught.contracts import KeyOut

    fields = {name: getattr(key, name) for name in KeyOut.model_fields}
    return KeyOut.model_validate(fields).model_dump(mode="json")
