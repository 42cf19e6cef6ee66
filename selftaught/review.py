"""`selftaught review`: one pair after the other in a terminal, each answered by a letter."""

from __future__ import annotations

import getpass
from typing import Literal

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from selftaught import ApiError, Client
from selftaught.cli.output import safe
from selftaught.contracts import ReviewItemOut

VERDICTS: dict[str, Literal["A", "B", "tie"]] = {"a": "A", "b": "B", "t": "tie"}
FILL = "POST /v1/models/NAME/versions/NUMBER/reviews, or the page Reviews (docs/reviews.md)"
CHOICES = "a: A is better, b: B, t: tie, s: skip, q: quit"


def run(client: Client, version: str, reviewer: str | None, console: Console) -> int:
    """Give out items until none is left or the reviewer quits; returns how many were answered."""
    name = reviewer or getpass.getuser()
    answered = 0
    while True:
        given = client.reviews.next(version, name)
        item = given.item
        if item is None:
            console.print("nothing is left to review", markup=False)
            if not answered:
                console.print(f"to fill the queue of {version}: {FILL}", markup=False)
            return answered
        _show(item, given.left, console)
        letter = _ask()
        if letter == "q":
            return answered
        if letter == "s":
            client.reviews.skip(item.id, name)
            continue
        try:
            told = client.reviews.answer(item.id, name, VERDICTS[letter])
        except ApiError as error:
            if error.code != "already_published":
                raise
            console.print("too late: others have answered this one", markup=False)
            continue
        answered += 1
        agrees = "agrees" if told.agrees else "does not agree"
        console.print(f"{told.model} said {told.model_verdict}: {agrees}", markup=False)


def report(client: Client, version: str, console: Console) -> None:
    """What all reviews of an exact version come to so far; nothing for an alias or before any."""
    model, _, number = version.rpartition(":")
    if not number.isdecimal():
        return
    found = client.reviews.summary(model, int(number))
    if found.agreement is not None and found.ci95 is not None:
        low, high = found.ci95
        kappa = "-" if found.kappa is None else f"{found.kappa:.2f}"
        console.print(
            f"{version}: {found.n} reviewed, agreement {found.agreement:.2f} "
            f"[{low:.2f}, {high:.2f}], kappa {kappa}",
            markup=False,
        )


def _show(item: ReviewItemOut, left: int, console: Console) -> None:
    console.rule(f"{left} left")
    for turn in item.context:
        console.print(f"{turn['role']}: {safe(turn['content'])}", markup=False)
    console.print(safe(item.instruction), markup=False, style="bold")
    for letter, response in (("A", item.response_a), ("B", item.response_b)):
        console.print(Panel(Text(safe(response)), title=letter))


def _ask() -> str:
    while True:
        letter = str(typer.prompt(CHOICES)).strip().lower()
        if letter in {*VERDICTS, "s", "q"}:
            return letter
