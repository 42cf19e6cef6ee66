"""``selftaught audit``: who did what."""

from __future__ import annotations

from typing import Annotated

import typer

from selftaught.cli.gateway import DEFAULT_HOME, Home, Limit, Url, at, connect, pages
from selftaught.cli.output import AsJson, emit, moment, rows


def audit(
    key: Annotated[str | None, typer.Option(help="Only by this key: its id or name.")] = None,
    method: Annotated[str | None, typer.Option(help="Only of this method; CLI: commands.")] = None,
    route: Annotated[
        str | None, typer.Option(help="Only of this route, such as /v1/jobs, or command.")
    ] = None,
    request: Annotated[str | None, typer.Option(help="Only of this request, by its id.")] = None,
    since: Annotated[str | None, typer.Option(help="Not before: 2026-11-27T09:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Before.")] = None,
    project: Annotated[
        str | None, typer.Option(help="The operator's: of this project, or * for all.")
    ] = None,
    limit: Limit = 20,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Who did what, newest first: whatever changed something, refused or not."""
    with connect(url, home) as client:
        found = pages(
            client,
            at("audit"),
            limit,
            key=key,
            method=method,
            route=route,
            request_id=request,
            project=project,
            since=since,
            until=until,
        )
    if as_json:
        emit(found)
        return
    lines = [
        (
            moment(one["at"]),
            one["project"],
            one["key_name"] or one["client"],
            f"{one['route']} {one['path']}" if one["method"] == "CLI" else one["path"],
            one["method"],
            one["status"],
            one["target"],
        )
        for one in found
    ]
    rows(("at", "project", "who", "what", "how", "answer", "made"), lines)
