"""``selftaught webhooks``: who is told of events, and what came of it; through the gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from selftaught.cli.gateway import DEFAULT_HOME, Home, Url, at, connect, pages
from selftaught.cli.output import AsJson, emit, rows, show

app = typer.Typer(
    help="Addresses that are told of events. Needs a key with scope admin, in SELFTAUGHT_API_KEY, "
    "where the gateway asks for one.",
    no_args_is_help=True,
)

Webhook = Annotated[str, typer.Argument(help="A webhook's id.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="Type, group ('job.*') or '*'; may be repeated.")
]


@app.command()
def create(
    target: Annotated[str, typer.Argument(metavar="ADDRESS", help="https://..")],
    event: Events = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Have an address told of events; prints its id and, this once, its secret."""
    asked = {"url": target, "events": event or ["*"], "description": description}
    with connect(url, home) as client:
        made = client.call("POST", at("webhooks"), json=asked)
    if as_json:
        emit(made)
    else:
        rows(("id", "secret"), [(made["id"], made["secret"])])


@app.command("list")
def list_webhooks(url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Every webhook of the project."""
    with connect(url, home) as client:
        found = pages(client, at("webhooks"), 100)
    if as_json:
        emit(found)
        return
    lines = [
        (
            one["id"],
            one["disabled_reason"] or ("failing" if one["failing_since"] else one["state"]),
            ",".join(one["events"]),
            one["url"],
        )
        for one in found
    ]
    rows(("id", "state", "events", "address"), lines)


@app.command()
def change(
    webhook: Webhook,
    target: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="A new address.")
    ] = None,
    event: Events = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send to it, or no more.")
    ] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Change its address or events, or enable or disable it."""
    state = None if enable is None else "enabled" if enable else "disabled"
    given = {"url": target, "events": event, "state": state}
    asked = {name: one for name, one in given.items() if one}
    with connect(url, home) as client:
        found = client.call("PATCH", at("webhooks", webhook), json=asked)
    show(found, as_json, f"{webhook} is {found['state']}")


@app.command()
def delete(
    webhook: Webhook, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Forget a webhook and all its deliveries."""
    with connect(url, home) as client:
        client.call("DELETE", at("webhooks", webhook))
    show({"id": webhook, "deleted": True}, as_json, f"deleted {webhook}")


@app.command()
def rotate(
    webhook: Webhook, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Print a new secret, this once; the one before signs, too, for 24 hours."""
    with connect(url, home) as client:
        found = client.call("POST", at("webhooks", webhook, "rotate-secret"))
    show(found, as_json, found["secret"])


@app.command()
def test(
    webhook: Webhook, url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Send a test event; prints the delivery's id."""
    with connect(url, home) as client:
        found = client.call("POST", at("webhooks", webhook, "test"))
    show(found, as_json, found["id"])


@app.command()
def deliveries(
    webhook: Webhook,
    state: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """The last 100 deliveries, newest first."""
    with connect(url, home) as client:
        found = pages(client, at("webhooks", webhook, "deliveries"), 100, state=state)
    if as_json:
        emit(found)
        return
    lines = [
        (
            one["id"],
            one["type"],
            one["state"],
            f"{one['attempts']} attempts",
            one["status"] or one["error"] or "-",
        )
        for one in found
    ]
    rows(("id", "event", "state", "attempts", "answer"), lines)


@app.command()
def redeliver(
    webhook: Webhook,
    delivery: Annotated[str, typer.Argument(help="A delivery's id.")],
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Send a delivery again, now."""
    with connect(url, home) as client:
        found = client.call("POST", at("webhooks", webhook, "deliveries", delivery, "redeliver"))
    show(found, as_json, f"{delivery} is {found['state']}")
