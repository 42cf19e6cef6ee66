"""``selftaught webhooks``: who is told of events, and what came of it; through the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selftaught.client import Client

app = typer.Typer(
    help="Addresses that are told of events (docs/webhooks.md). Needs a key with scope admin, in "
    "SELFTAUGHT_API_KEY, where the gateway asks for one.",
    no_args_is_help=True,
)

Home = Annotated[
    Path,
    typer.Option("--home", envvar="SELFTAUGHT_HOME", help="Folder with the stack's state."),
]
Webhook = Annotated[str, typer.Argument(help="A webhook's id.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="Type, group ('job.*') or '*'; may be repeated.")
]
DEFAULT_HOME = Path(".selftaught")


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="https://..")],
    event: Events = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Have an address told of events; prints its id and, this once, its secret."""
    with _client(home) as client:
        made = client.create_webhook(url, events=event or ["*"], description=description)
    typer.echo(f"{made['id']}\t{made['secret']}")


@app.command("list")
def list_webhooks(home: Home = DEFAULT_HOME) -> None:
    """Every webhook of the project."""
    with _client(home) as client:
        for one in client.webhooks():
            state = one["disabled_reason"] or ("failing" if one["failing_since"] else one["state"])
            typer.echo(f"{one['id']}\t{state}\t{','.join(one['events'])}\t{one['url']}")


@app.command()
def change(
    webhook: Webhook,
    url: Annotated[str | None, typer.Option(help="A new address.")] = None,
    event: Events = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send to it, or no more.")
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Change its address or events, or enable or disable it."""
    state = None if enable is None else "enabled" if enable else "disabled"
    given = {"url": url, "events": event, "state": state}
    with _client(home) as client:
        client.change_webhook(webhook, **{name: one for name, one in given.items() if one})


@app.command()
def delete(webhook: Webhook, home: Home = DEFAULT_HOME) -> None:
    """Forget a webhook and all its deliveries."""
    with _client(home) as client:
        client.delete_webhook(webhook)


@app.command()
def rotate(webhook: Webhook, home: Home = DEFAULT_HOME) -> None:
    """Print a new secret, this once; the one before signs, too, for 24 hours."""
    with _client(home) as client:
        typer.echo(client.rotate_webhook_secret(webhook)["secret"])


@app.command()
def test(webhook: Webhook, home: Home = DEFAULT_HOME) -> None:
    """Send a test event; prints the delivery's id."""
    with _client(home) as client:
        typer.echo(client.test_webhook(webhook)["id"])


@app.command()
def deliveries(
    webhook: Webhook,
    state: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """The last 100 deliveries, newest first."""
    query = {"limit": 100, **({"state": state} if state else {})}
    with _client(home) as client:
        for one in client.webhook_deliveries(webhook, **query):
            came = one["status"] or one["error"] or "-"
            told = (one["id"], one["type"], one["state"], f"{one['attempts']} attempts", str(came))
            typer.echo("\t".join(told))


@app.command()
def redeliver(
    webhook: Webhook,
    delivery: Annotated[str, typer.Argument(help="A delivery's id.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Send a delivery again, now."""
    with _client(home) as client:
        client.redeliver(webhook, delivery)


@contextmanager
def _client(home: Path) -> Iterator[Client]:
    """A client of the home's gateway; a refusal ends the command with 1."""
    from rich.console import Console

    from selftaught.client import ApiError, Client
    from selftaught.demo import ensure_stack

    try:
        with Client(ensure_stack(home.resolve(), Console(stderr=True))) as client:
            yield client
    except ApiError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
