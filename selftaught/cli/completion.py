"""What the shell offers: names that the gateway knows, asked for at each Tab.

It must never be in the way: a gateway that is away, slow or refuses offers nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import typer

SECONDS = 1.0
"""Longer nobody waits for a Tab."""
Offer = list[tuple[str, str]]
"""(word, what it is)"""
_WORD = re.compile(r"[\w.:+-]+")
_ODD = re.compile(r"[^\w .,:+-]")
"""What a shell could take for more than text. zsh evaluates what it is offered, and of what others
called a thing Typer's quoting lets `\\$(..)` through."""


def jobs(ctx: typer.Context, incomplete: str) -> Offer:
    """Ids of the newest jobs."""
    return _offer(
        incomplete,
        [(one["id"], f"{one['state']} {one['model']}") for one in _ask(ctx, "/v1/jobs")],
    )


def datasets(ctx: typer.Context, incomplete: str) -> Offer:
    """Ids of the newest datasets."""
    return _offer(
        incomplete,
        [
            (one["id"], f"{one['name']}, {one['rows']} {one['kind']}")
            for one in _ask(ctx, "/v1/datasets")
        ],
    )


def models(ctx: typer.Context, incomplete: str) -> Offer:
    """Names of models."""
    return _offer(
        incomplete,
        [(one["name"], f"{one['versions']} versions") for one in _ask(ctx, "/v1/models")],
    )


def recipe_names(ctx: typer.Context, incomplete: str) -> Offer:
    """Names of recipes."""
    return _offer(
        incomplete,
        [
            (one["name"], f"{one['base_model']}, {one['iterations']} iterations")
            for one in _ask(ctx, "/v1/recipes", limited=False)
        ],
    )


def _offer(incomplete: str, known: Offer) -> Offer:
    return [
        (word, _ODD.sub("?", told))
        for word, told in known
        if word.startswith(incomplete) and _WORD.fullmatch(word)
    ]


def _ask(ctx: typer.Context, path: str, limited: bool = True) -> list[dict[str, Any]]:
    """The first entries of a list; none if they cannot be had at once."""
    import httpx

    from selftaught.cli.gateway import DEFAULT_HOME, NoGateway, find

    url = ctx.params.get("url") or os.environ.get("SELFTAUGHT_URL")
    home = ctx.params.get("home") or os.environ.get("SELFTAUGHT_HOME") or DEFAULT_HOME
    key = os.environ.get("SELFTAUGHT_API_KEY")
    try:
        answer = httpx.get(
            find(url, Path(home)) + path,
            params={"limit": 100} if limited else None,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=SECONDS,
        )
        found: list[dict[str, Any]] = answer.json()["data"] if answer.is_success else []
    except (httpx.HTTPError, httpx.InvalidURL, NoGateway, OSError, ValueError, KeyError):
        return []  # a Tab that offers nothing says enough
    return found
