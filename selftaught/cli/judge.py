"""``selftaught judge``: which of two responses is better?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selftaught.cli.completion import models
from selftaught.cli.errors import Failed
from selftaught.cli.gateway import DEFAULT_HOME, Home, Json, Url, connect
from selftaught.cli.output import AsJson, emit, emit_line, note, out, safe, say

if TYPE_CHECKING:
    from selftaught.client import Client

TEXT = "A text, @FILE, or - for stdin."
FIELDS = ("instruction", "response_a", "response_b")


def judge(
    instruction: Annotated[str | None, typer.Argument(help=f"What was asked. {TEXT}")] = None,
    response_a: Annotated[str | None, typer.Argument(metavar="A", help=TEXT)] = None,
    response_b: Annotated[str | None, typer.Argument(metavar="B", help=TEXT)] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="name, name:alias or name:number; default: the only model's latest.",
            autocompletion=models,
        ),
    ] = None,
    explain: Annotated[bool, typer.Option(help="Show what the judge wrote, too.")] = False,
    stream: Annotated[bool, typer.Option(help="Show it as it is written.")] = False,
    votes: Annotated[int | None, typer.Option(min=1, help="1 is greedy.")] = None,
    both_orders: Annotated[
        bool | None, typer.Option(help="Judge in both orders; disagreement is a tie.")
    ] = None,
    allow_tie: Annotated[bool | None, typer.Option(help="A tie may be the verdict.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Judge template; default: the version's own.")
    ] = None,
    rubric: Annotated[
        str | None, typer.Option(help=f"What a good response must do. {TEXT}")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help=f"An answer that is known to be good. {TEXT}")
    ] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Which of two responses is better?

    Without arguments, stdin is the question: a JSON object with instruction (or messages),
    response_a and response_b, and whatever else POST /judge takes. With --stream and --json: a line
    of JSON for each event.
    """
    options: Json = {
        "model": model,
        "votes": votes,
        "both_orders": both_orders,
        "allow_tie": allow_tie,
        "template": template,
        "rubric": None if rubric is None else text(rubric),
        "reference": None if reference is None else text(reference),
        "explain": explain or None,
    }
    asked = _question(instruction, response_a, response_b)
    asked |= {name: value for name, value in options.items() if value is not None}
    with connect(url, home) as client:
        if stream:
            _streamed(client, asked, as_json)
            return
        found = client.call("POST", "/judge", json=asked)
    if as_json:
        emit(found)
    else:
        tell(found)


def text(given: str) -> str:
    """What an argument stands for: itself, a file's text or stdin's."""
    try:
        if given == "-":
            return sys.stdin.read()
        if given.startswith("@"):
            return Path(given[1:]).read_text()
    except UnicodeDecodeError as error:
        raise Failed(f"{given.removeprefix('@')}: is no text (UTF-8)") from error
    return given


def tell(found: Json) -> None:
    """The verdict, and why if that was asked for."""
    verdict = found["verdict"]
    likely = found["probability"]
    words = {"A": "A is better", "B": "B is better", "tie": "tie: neither is better"}
    line = words.get(verdict, "the judge wrote no verdict that can be read")
    if verdict == "tie" and found["orders_agree"] is False:
        line = "tie: the two orders disagree"
    if likely and verdict in ("A", "B"):
        line += f" (probability {likely[verdict.lower()]:.3f})"
    elif likely and verdict == "tie":  # of a judge that knows no tie, a tie's own is nothing
        line += f" (A {likely['a']:.2f}, B {likely['b']:.2f})"
    out.print(line, style="bold")
    for order in found["orders"]:
        written = order.get("reasoning")
        told = f"{_order(order['order'], bool(written))}: {order['verdict']}"
        say(told + (f"  {written}" if written else ""))
    if found["orders_agree"] is False and verdict != "tie":
        say("the orders do not agree")
    note(f"{found['model']}, {found['latency']['total']:.2f} s, {found['id']}")


def _order(order: str, with_text: bool) -> str:
    """An order's name; in the text of BA the letters stand for each other."""
    if order != "BA":
        return order
    return "BA (shown swapped; A in its text is B here)" if with_text else "BA (shown swapped)"


def _question(*given: str | None) -> Json:
    """The fields that say what is judged. Raises BadParameter, Failed."""
    if all(one is not None for one in given):
        if given.count("-") > 1:
            raise typer.BadParameter("only one text can come from stdin")
        return {name: text(str(one)) for name, one in zip(FIELDS, given, strict=True)}
    if any(one is not None for one in given):
        raise typer.BadParameter("give INSTRUCTION, A and B, or none of them and JSON on stdin")
    if sys.stdin.isatty():
        raise typer.BadParameter("give INSTRUCTION, A and B, or JSON on stdin")
    try:
        asked: Any = json.load(sys.stdin)
    except ValueError as error:
        raise Failed(f"stdin is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Failed("stdin is to be one JSON object; for many pairs: selftaught batch")
    return asked


def _streamed(client: Client, asked: Json, as_json: bool) -> None:
    """The reasoning as it is written, then the verdict."""
    at_once = ""
    for name, data in client.listen("POST", "/judge", json={**asked, "stream": True}):
        if as_json:
            emit_line({"event": name, "data": data})
        elif name == "delta":
            if data["order"] != at_once:
                order = safe(_order(data["order"], with_text=True))
                out.print(f"\n{order}: " if at_once else f"{order}: ", end="", markup=False)
                at_once = data["order"]
            out.print(safe(data["text"]), end="", markup=False)
        elif name == "restart":
            note(f"{data['order']} is asked again")
        elif name == "verdict":
            out.print()
            tell({**data, "orders": []})
