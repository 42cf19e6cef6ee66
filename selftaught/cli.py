"""The ``selftaught`` command. Heavy imports stand inside the commands: ``--help`` is instant."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from selftaught import keeping_cli
from selftaught.jobs_cli import app as jobs_app
from selftaught.keys_cli import app as keys_app
from selftaught.keys_cli import projects
from selftaught.webhooks_cli import app as webhooks_app

if TYPE_CHECKING:
    from rich.table import Table

    from selftaught.memory import Phase, Plan
    from selftaught.stack.state import StackRecord

app = typer.Typer(
    name="selftaught",
    help="Turn unlabelled instructions into a judge.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(keys_app, name="keys")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(projects, name="projects")
app.add_typer(jobs_app, name="jobs")
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Home = Annotated[
    Path,
    typer.Option("--home", envvar="SELFTAUGHT_HOME", help="Folder with the stack's state."),
]
DEFAULT_HOME = Path(".selftaught")


@app.command()
def up(
    home: Home = DEFAULT_HOME,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; return when ready.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(help="Gateway port. Default: 8080, or any free one if that is taken."),
    ] = None,
    evaluator_port: Annotated[
        int, typer.Option(help="Evaluator service port; 0: any free one.")
    ] = 0,
    evaluators: Annotated[
        int, typer.Option(min=1, help="Number of evaluator processes behind /judge.")
    ] = 1,
    generator_workers: Annotated[
        int, typer.Option(min=0, help="Number of generator worker processes.")
    ] = 2,
) -> None:
    """Start Postgres, Redis and every service on this machine.

    DATABASE_URL and REDIS_URL, if set, name servers to use instead of starting them.
    """
    from selftaught.stack.handle import Stack
    from selftaught.stack.spec import AlreadyRunning, StackError
    from selftaught.stack.supervisor import Supervisor

    stack = Stack(
        home,
        port=port,
        evaluator_port=evaluator_port,
        evaluators=evaluators,
        generator_workers=generator_workers,
        tied=False,
    )
    try:
        if detach:
            with console.status("starting") as line:
                stack.start(lambda record: line.update(_progress(record)))
            console.print(_table(stack.record))
            console.print(f"ready: {stack.gateway_url}  (stop with: selftaught down)")
        else:
            Supervisor(stack.config, report=partial(console.print, markup=False)).run()
    except AlreadyRunning as error:
        errors.print(f"{error}; see: selftaught status --home {home}", markup=False)
        raise typer.Exit(1) from None
    except StackError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None


@app.command()
def down(home: Home = DEFAULT_HOME) -> None:
    """Stop the stack of this home and wait until everything has ended."""
    from selftaught.stack.handle import stop_home
    from selftaught.stack.spec import StackError

    try:
        with console.status("stopping"):
            stopped = stop_home(home.resolve())
    except StackError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    console.print("stopped" if stopped else f"no stack runs in {home}")


@app.command()
def status(
    home: Home = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Show what runs, and where. Exits with 1 if no stack runs in this home."""
    import json

    from selftaught.stack import state

    record = state.read(home.resolve())
    running = record is not None and record["running"]
    if as_json:
        typer.echo(json.dumps(record or {"running": False}, indent=1))
    elif record is None or not running:
        console.print(f"no stack runs in {home}")
        if record is not None and record["error"]:
            console.print(record["error"], markup=False)
    else:
        console.print(_table(record))
    if not running:
        raise typer.Exit(1)


@app.command()
def demo(
    home: Home = DEFAULT_HOME,
    recipe: Annotated[str, typer.Option(help="Named recipe of the job.")] = "quickstart",
) -> None:
    """Run one whole job on the shipped small world, watch it, and judge a pair."""
    from selftaught.demo import run
    from selftaught.stack.spec import StackError

    try:
        status_code = run(home.resolve(), recipe, console)
    except StackError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    raise typer.Exit(status_code)


@app.command()
def register(
    base_model: Annotated[str, typer.Argument(help="A folder in <home>/models, or 'smallworld'.")],
    home: Home = DEFAULT_HOME,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the same.")] = None,
    template: Annotated[str, typer.Option(help="Judge template.")] = "mt-bench",
    max_tokens: Annotated[int, typer.Option(help="Length limit of a judgment.")] = 1024,
) -> None:
    """Make a base model a version as it is, to be evaluated or to judge."""
    from selftaught.client import ApiError, Client
    from selftaught.demo import ensure_stack
    from selftaught.evaluate import register as run

    options = {"name": name, "template": template, "max_tokens": max_tokens}
    try:
        with Client(ensure_stack(home.resolve(), errors)) as client:
            job = run(client, {"base_model": base_model, **options})
    except ApiError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    if job["state"] != "succeeded":
        errors.print_json(data=job["error"] or {"state": job["state"]})
        raise typer.Exit(1)
    console.print(job["version"])


@app.command()
def export(
    version: Annotated[str, typer.Argument(help="name, name:alias or name:number.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Write a version as whole weights (safetensors), its adapter merged into the base."""
    from selftaught.client import ApiError, Client
    from selftaught.demo import ensure_stack
    from selftaught.export import ExportError, find
    from selftaught.export import export as run

    try:
        with Client(ensure_stack(home.resolve(), errors)) as client:
            found = find(client, version)
        with console.status(f"merging {found['ref']}"):
            run(found, home.resolve() / "versions", out.resolve())
    except (ApiError, ExportError) as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    console.print(f"{found['ref']} -> {out}")


@app.command()
def evaluate(
    benchmark: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="File in its published format.")
    ],
    model: Annotated[str, typer.Option(help="name, name:alias or name:number.")],
    home: Home = DEFAULT_HOME,
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
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file, too.")
    ] = None,
) -> None:
    """Score a model version on a benchmark's file, with intervals."""
    from selftaught.client import ApiError, Client
    from selftaught.demo import ensure_stack
    from selftaught.evaluate import evaluate as run
    from selftaught.evaluate import report, tables

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
    try:
        with Client(ensure_stack(home.resolve(), errors)) as client:
            found = run(client, benchmark, options, errors)
    except ApiError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    if found["state"] != "succeeded":
        errors.print_json(data=found["error"] or {"state": found["state"]})
        raise typer.Exit(1)
    if not console.is_terminal:
        console.width = 140
    for table in tables(found):
        console.print(table)
    if json_file is not None:
        json_file.write_text(report(found))


@app.command()
def batch(
    pairs: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, see docs.")],
    out: Annotated[Path, typer.Argument(dir_okay=False, help="File to write results to.")],
    home: Home = DEFAULT_HOME,
    model: Annotated[str | None, typer.Option(help="name, name:alias or name:number.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Judge template; default: the version's own.")
    ] = None,
    votes: Annotated[int, typer.Option(min=1, help="1 is greedy.")] = 1,
    both_orders: Annotated[bool, typer.Option(help="Judge in both orders.")] = True,
    allow_tie: Annotated[bool, typer.Option(help="A tie may be the verdict.")] = True,
    explain: Annotated[bool, typer.Option(help="Write down the reasoning, too.")] = False,
) -> None:
    """Judge many pairs: a JSON object with instruction, response_a and response_b in each line."""
    from selftaught.client import ApiError, Client
    from selftaught.demo import ensure_stack
    from selftaught.evaluate import batch as run

    options = {"model": model, "template": template, "votes": votes}
    options |= {"both_orders": both_orders, "allow_tie": allow_tie, "explain": explain}
    try:
        with Client(ensure_stack(home.resolve(), errors)) as client, out.open("wb") as file:
            found = run(client, pairs, file, options, errors)
    except ApiError as error:
        errors.print(str(error), markup=False)
        for line in error.problem.get("errors", []):
            errors.print(f"line {line['line']}, {line['field']}: {line['message']}", markup=False)
        raise typer.Exit(1) from None
    told = {**found["request_counts"], **found["verdicts"]}
    console.print(", ".join(f"{name} {count}" for name, count in told.items()))
    if found["state"] != "completed":
        errors.print_json(data=found["error"] or {"state": found["state"]})
        raise typer.Exit(1)


@app.command()
def review(
    version: Annotated[str, typer.Argument(help="name:number, name:alias or name.")],
    home: Home = DEFAULT_HOME,
    reviewer: Annotated[
        str | None, typer.Option(help="Who reviews; default: this account's name.")
    ] = None,
) -> None:
    """Review a version's queue in the terminal: which response is better? Blind to the model."""
    from selftaught.client import ApiError, Client
    from selftaught.demo import ensure_stack
    from selftaught.review import report, run

    try:
        with Client(ensure_stack(home.resolve(), errors)) as client:
            run(client, version, reviewer, console)
            report(client, version, console)
    except ApiError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None


@app.command()
def controls(
    instructions: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a YAML file.")] = "quickstart",
    labelled: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Labelled pairs to score on; default: held-out pairs."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Loop seeds.")] = "0,1,2",
    at_once: Annotated[int, typer.Option(min=1, help="Jobs at a time.")] = 2,
    home: Home = DEFAULT_HOME,
) -> None:
    """Run a recipe's loop and its controls on equal training tokens, and print a table.

    Controls: one round on all instructions, no labels, random labels, own majority. Every arm and
    loop seed is a job. The same call after an interruption goes on.
    """
    import httpx
    import yaml
    from pydantic import ValidationError

    from selftaught.client import ApiError, Client
    from selftaught.contracts import Recipe
    from selftaught.controls import means, run
    from selftaught.demo import ensure_stack
    from selftaught.registry import UnknownName, load_recipe
    from selftaught.stack.spec import StackError

    if not all(seed.isdecimal() for seed in seeds.split(",")):
        raise typer.BadParameter("give numbers with commas between them", param_hint="--seeds")
    numbers = sorted(map(int, seeds.split(",")))
    try:
        file = Path(recipe)
        raw = yaml.safe_load(file.read_text()) if file.is_file() else load_recipe(recipe)
        settings = Recipe.model_validate(raw)
        with Client(ensure_stack(home.resolve(), errors)) as client:
            results, failures = run(
                client,
                home.resolve(),
                settings,
                instructions,
                labelled,
                numbers,
                at_once,
                partial(errors.print, markup=False),
            )
    except (ApiError, StackError, UnknownName, ValidationError, yaml.YAMLError) as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    except httpx.TransportError as error:
        errors.print(f"the gateway is away ({error}); the same command goes on", markup=False)
        raise typer.Exit(1) from None
    for line in means(results):
        typer.echo(line)
    for name, why in failures.items():
        errors.print(f"{name} did not succeed: {why}", markup=False)
    raise typer.Exit(1 if failures else 0)


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a YAML file.")],
    gpu_memory: Annotated[
        float, typer.Option(min=1, help="Memory of a GPU, in GB as it is sold.")
    ] = 80,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs there are; default: as the recipe asks for.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value for a setting, e.g. train.lora.rank=16."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print bytes, as JSON.")] = False,
) -> None:
    """Show what memory a recipe needs on each GPU, before anything is started.

    Exits with 1 if something does not fit. Needs no GPU, no model and no running stack.
    """
    import json

    import yaml
    from pydantic import ValidationError

    from selftaught.architectures import Unplanned, architecture
    from selftaught.contracts import Recipe
    from selftaught.memory import make_plan
    from selftaught.registry import UnknownName, load_recipe, merge

    try:
        file = Path(recipe)
        raw = yaml.safe_load(file.read_text()) if file.is_file() else load_recipe(recipe)
        for one in change or []:
            raw = merge(raw, _setting(one))
        found = make_plan(Recipe.model_validate(raw), architecture, gpu_memory)
    except (Unplanned, UnknownName, ValidationError, yaml.YAMLError) as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    count = gpus or found.gpus
    refusals = found.refusals(count)
    if as_json:
        typer.echo(json.dumps(found.as_json(count), indent=1))
    else:
        if not console.is_terminal:
            console.width = 140
        console.print(_plan_table(found))
        for line in found.elsewhere:
            console.print(line, markup=False)
        if not refusals:
            console.print(f"{found.recipe} fits on {count} x {gpu_memory:g} GB.", markup=False)
    for line in refusals:
        errors.print(line, markup=False)
    raise typer.Exit(1 if refusals else 0)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="name:number.")],
    home: Home = DEFAULT_HOME,
    alias: Annotated[str, typer.Option(help="The alias to move.")] = "latest",
    force: Annotated[
        bool, typer.Option("--force", help="Even if a rule fails; needs a key and a reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="SELFTAUGHT_API_KEY", help="API key to send.")
    ] = None,
) -> None:
    """Move an alias to a version if it passes the gate; exits with 1 if it does not."""
    from selftaught.client import ApiError, Client
    from selftaught.demo import ensure_stack

    model, _, number = version.rpartition(":")
    if not model or not (number.isascii() and number.isdigit()):
        raise typer.BadParameter(f"{version!r} is not name:number")
    try:
        with Client(ensure_stack(home.resolve(), errors), key=key) as client:
            found = client.promote(model, int(number), alias=alias, force=force, reason=reason)
    except ApiError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    for finding in found["findings"]:
        console.print(f"{finding['rule']}: {finding['detail']}", markup=False)
    how = "forced" if found["forced"] else "promoted"
    console.print(f"{found['version']} {how} to {alias}", markup=False)


@app.command()
def migrate() -> None:
    """Bring the database of DATABASE_URL to this version's schema."""
    import subprocess

    from selftaught.stack.services import migrations

    raise typer.Exit(subprocess.run(migrations().command, check=False).returncode)


keeping_cli.install(app)


def _setting(text: str) -> dict[str, Any]:
    """The settings tree of "train.lora.rank=16"; the value is YAML."""
    import yaml

    path, found, value = text.partition("=")
    if not found:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    tree: Any = yaml.safe_load(value)
    for name in reversed(path.split(".")):
        tree = {name: tree}
    return dict(tree)


def _plan_table(plan: Plan) -> Table:
    """A column for each phase, a row for each part (GiB on each GPU)."""
    from rich.table import Table

    from selftaught.memory import GIB, PARTS

    def gib(size: int | None) -> str:
        return "" if size is None else f"{size / GIB:.1f}"

    def cached(phase: Phase) -> tuple[str, str, str]:
        if phase.cache is None:
            return "", "", ""
        return (
            f"{phase.cache.token / 1024:,.0f} KiB",
            f"{phase.cache.room:,}",
            f"{phase.cache.at_once:.1f} x {phase.cache.longest:,}",
        )

    table = Table("GiB on each GPU", title=f"{plan.recipe} on GPUs of {plan.gpu_memory:g} GB")
    for phase in plan.phases:
        table.add_column(phase.name, justify="right")
    table.add_row("model", *(phase.model for phase in plan.phases))
    table.add_row("GPUs", *(str(phase.gpus) for phase in plan.phases), end_section=True)
    parts = {name for phase in plan.phases for name in phase.parts}
    for part in (name for name in PARTS if name in parts):
        table.add_row(part, *(gib(phase.parts.get(part)) for phase in plan.phases))
    table.add_section()
    table.add_row("needed", *(gib(phase.needed) for phase in plan.phases))
    table.add_row("available", *(gib(phase.available) for phase in plan.phases))
    table.add_row("fits", *("yes" if phase.fits else "no" for phase in plan.phases))
    table.add_row(
        "fewest such GPUs",
        *(str(phase.fewest or "none") for phase in plan.phases),
        end_section=True,
    )
    rows = zip(*(cached(phase) for phase in plan.phases), strict=True)
    names = ("KV cache of a token", "tokens in the KV cache", "sequences at once")
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *row)
    return table


def _progress(record: StackRecord) -> str:
    return "starting: " + ", ".join(process["name"] for process in record["processes"])


def _table(record: StackRecord) -> Table:
    from rich.table import Table

    table = Table("process", "pid", "state", "restarts", "url", title=f"stack: {record['state']}")
    for process in record["processes"]:
        pid, restarts = str(process["pid"] or ""), str(process["restarts"])
        table.add_row(process["name"], pid, process["state"], restarts, process["url"] or "")
    return table


if __name__ == "__main__":
    app()
