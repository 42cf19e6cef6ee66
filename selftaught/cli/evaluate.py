"""``selftaught evaluate``, ``batch`` and ``review``: what a judge is worth, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from selftaught.cli.completion import models
from selftaught.cli.errors import Failed
from selftaught.cli.gateway import DEFAULT_HOME, Home, Url, connect
from selftaught.cli.output import AsJson, emit, err, figures, out, show

VERSION = "name, name:alias or name:number."


def evaluate(
    benchmark: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="File in its published format.")
    ],
    model: Annotated[str, typer.Option(help=VERSION, autocompletion=models)],
    scoring: Annotated[str, typer.Option(help="strict, official or both.")] = "strict,official",
    template: Annotated[
        str | None, typer.Option(help="Judge template; default: the version's own.")
    ] = None,
    votes: Annotated[int, typer.Option(min=1, help="1 is greedy.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of orders, votes and intervals.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Judge so many examples, drawn by the seed.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length limit of an answer.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Which benchmark it is; default: by its fields.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write settings and scores to this file: no ids, no times."),
    ] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Score a model version on a benchmark's file, with intervals.

    Starts the stack of this home if no gateway is named and none runs.
    """
    from selftaught.evaluate import evaluate as run
    from selftaught.evaluate import report as written
    from selftaught.evaluate import tables

    options = {
        "model": model,
        "scoring": scoring.replace(" ", "").split(","),
        "template": template,
        "votes": votes,
        "seed": seed,
        "limit": limit,
        "max_tokens": max_tokens,
        "benchmark": kind,
    }
    with connect(url, home, start=True) as client:
        found = run(client, benchmark, options, err)
    need_success(found)
    if as_json:
        emit(found)
    else:
        for table in tables(found):
            figures(table)
    if report is not None:
        report.write_text(written(found))


def batch(
    pairs: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, see docs.")],
    results: Annotated[
        Path, typer.Argument(metavar="OUT", dir_okay=False, help="File to write results to.")
    ],
    model: Annotated[str | None, typer.Option(help=VERSION, autocompletion=models)] = None,
    template: Annotated[
        str | None, typer.Option(help="Judge template; default: the version's own.")
    ] = None,
    votes: Annotated[int, typer.Option(min=1, help="1 is greedy.")] = 1,
    both_orders: Annotated[bool, typer.Option(help="Judge in both orders.")] = True,
    allow_tie: Annotated[bool, typer.Option(help="A tie may be the verdict.")] = True,
    explain: Annotated[bool, typer.Option(help="Write down the reasoning, too.")] = False,
    url: Url = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Judge many pairs: a JSON object with instruction, response_a and response_b in each line.

    Starts the stack of this home if no gateway is named and none runs.
    """
    from selftaught.evaluate import batch as run

    options = {"model": model, "template": template, "votes": votes}
    options |= {"both_orders": both_orders, "allow_tie": allow_tie, "explain": explain}
    with connect(url, home, start=True) as client, results.open("wb") as file:
        found = run(client, pairs, file, options, err)
    told = {**found["request_counts"], **found["verdicts"]}
    show(found, as_json, ", ".join(f"{name} {count}" for name, count in told.items()))
    need_success(found, "completed")


def review(
    version: Annotated[
        str, typer.Argument(help="name:number, name:alias or name.", autocompletion=models)
    ],
    reviewer: Annotated[
        str | None, typer.Option(help="Who reviews; default: this account's name.")
    ] = None,
    url: Url = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Review a version's queue in the terminal: which response is better? Blind to the model.

    Starts the stack of this home if no gateway is named and none runs.
    """
    from selftaught.review import report, run

    with connect(url, home, start=True) as client:
        run(client, version, reviewer, out)
        report(client, version, out)


def need_success(found: dict[str, Any], wanted: str = "succeeded") -> None:
    """Raises Failed, with why, for work that did not end as it should."""
    if found["state"] == wanted:
        return
    error = found.get("error") or {}
    text = f"{found['id']} {found['state']}"
    if error:
        text += f": {error.get('detail') or json.dumps(error)} ({error.get('code')})"
    fault = error.get("fault")
    hint = (
        None
        if fault != "system"
        else f"it may go better again: selftaught jobs retry {found['id']}"
    )
    raise Failed(text, hint)
