"""What commands write: results to stdout, or JSON and nothing else there; all else to stderr.

A list is a table on a terminal and lines with tabs elsewhere, for `cut` and `awk`. Texts that come
from others never steer the terminal.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but tab and newline
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"  # what turns the direction of writing
)
WIDE = 140
"""Columns of a table that does not go to a terminal."""


def safe(text: str) -> str:
    """The text without what would steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str, style: str | None = None) -> None:
    """A line of a result."""
    out.print(Text(safe(text)), style=style)


def note(text: str, style: str | None = None) -> None:
    """A line that is no result: how it goes, what to do next."""
    err.print(Text(safe(text)), style=style)


def emit(data: Any) -> None:
    """A whole answer as JSON."""
    typer.echo(json.dumps(data, indent=1, default=str))


def emit_line(data: Any) -> None:
    """One of many, as a line of JSON, written at once."""
    typer.echo(json.dumps(data, default=str))


def show(data: Any, as_json: bool, text: str) -> None:
    """JSON if asked for; else one line for people."""
    if as_json:
        emit(data)
    else:
        say(text)


def rows(titles: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """A table on a terminal; elsewhere a line for each row, without titles, cells between tabs."""
    if not out.is_terminal:
        for line in lines:
            typer.echo("\t".join(_flat(cell) for cell in line))
        return
    lines = list(lines)
    if not lines:
        note("none")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        table.add_column(title, overflow="fold", no_wrap=place == 0)  # what is copied stays whole
    for line in lines:
        table.add_row(*(Text(_flat(cell)) for cell in line))
    out.print(table)


def figures(table: Table) -> None:
    """A table of figures: as wide as it needs where it does not go to a terminal."""
    out.print(table, width=None if out.is_terminal else WIDE)


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing, a line for each of its fields."""
    known = [(name, _flat(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        out.print(Text(f"{name:<{width}}  ", style="dim") + Text(value))


def confirm(question: str, yes: bool) -> None:
    """Ask a person at a terminal; no ends the command with 1. A script is not asked."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)


def moment(stamp: str | None) -> str:
    """A time of the API (UTC): to the second, on a terminal short."""
    if stamp is None:
        return "-"
    if not out.is_terminal:
        return stamp[:19].replace("T", " ")
    time, now = dt.datetime.fromisoformat(stamp), dt.datetime.now(dt.UTC)
    return f"{time:%b %d %H:%M}" if time.year == now.year else f"{time:%Y-%m-%d}"


def size(number: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def duration(seconds: float | None) -> str:
    """Seconds as 0:42, 3:05 or 2:07:59."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _flat(cell: object) -> str:
    return "-" if cell is None else safe(str(cell)).replace("\t", " ").replace("\n", " ")
