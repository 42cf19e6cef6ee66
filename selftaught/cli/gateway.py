"""Where a command finds its gateway, and what it asks there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from selftaught.client import Client

Json = dict[str, Any]
Home = Annotated[
    Path,
    typer.Option("--home", envvar="SELFTAUGHT_HOME", help="Folder with the stack's state."),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="SELFTAUGHT_URL", help="The gateway; default: of the stack in --home."
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
DEFAULT_HOME = Path(".selftaught")
PAGE = 100
"""Entries that the gateway gives at most in one answer."""


class NoGateway(Exception):
    """Nothing says where the gateway is, or what is said is no address of one."""


def find(url: str | None, home: Path) -> str:
    """The gateway's URL: as given, or of the stack that runs in this home. Raises NoGateway."""
    from selftaught.stack import state

    if url:
        if not url.startswith(("http://", "https://")):
            raise NoGateway(f"{url!r} is no address of a gateway: write http://.. or https://..")
        return url.rstrip("/")
    record = state.read(home.resolve())
    if record is None or not record["running"]:
        raise NoGateway(
            f"no stack runs in {home}: start one with `selftaught up`, or say where a gateway is "
            "with --url or SELFTAUGHT_URL"
        )
    if "gateway" not in record["urls"]:
        raise NoGateway(f"the stack in {home} has no gateway yet: see `selftaught status`")
    return record["urls"]["gateway"]


@contextmanager
def connect(url: str | None, home: Path, start: bool = False) -> Iterator[Client]:
    """A client of the gateway; `start`: without one, the home's stack is started first."""
    from selftaught.client import Client

    if start and not url:
        from selftaught.cli.output import err
        from selftaught.demo import ensure_stack

        found = ensure_stack(home.resolve(), err)
    else:
        found = find(url, home)
    with Client(found) as client:
        yield client


def pages(client: Client, path: str, limit: int, by: str = "id", **query: Any) -> list[Json]:
    """The first `limit` entries of a list, over as many of its pages as it takes.

    `by`: the field that the next page begins behind.
    """
    found: list[Json] = []
    asked = {name: value for name, value in query.items() if value is not None}
    while len(found) < limit:
        asked["limit"] = min(PAGE, limit - len(found))
        page = client.call("GET", path, params=asked)
        found += page["data"]
        if not page["has_more"]:
            break
        asked["after"] = page["data"][-1][by]
    return found


def at(*parts: str | int) -> str:
    """The path below /v1 of these parts; whatever a user calls a thing stays one part."""
    from selftaught.client.answers import url

    try:
        return url("v1", *parts)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
