"""The ``selftaught`` command: a module for each noun, put together here.

Heavy imports stand inside the commands: ``--help`` is instant, and what speaks to a gateway needs
nothing that only services need. `output.py` writes, `errors.py` says what went wrong and what to do
about it, `gateway.py` finds the gateway, `completion.py` knows the names that there are.
"""

from __future__ import annotations

import typer

from selftaught.cli import (
    audit,
    controls,
    datasets,
    evaluate,
    jobs,
    judge,
    keeping,
    keys,
    models,
    plan,
    projects,
    recipes,
    stack,
    usage,
    verdicts,
    webhooks,
)
from selftaught.cli.errors import Group

app = typer.Typer(
    name="selftaught",
    help="Turn unlabelled instructions into a judge.\n\n"
    "Commands find their gateway by --url or SELFTAUGHT_URL, else by the stack that runs in "
    "--home; SELFTAUGHT_API_KEY is the key that they send. They exit with 0: done, 1: failed, "
    "also for a name or setting that there is not, 2: no such option, or a value of the wrong "
    "form, 130: interrupted.",
    no_args_is_help=True,
    cls=Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

WORK = "Work"
STACK = "This machine's stack"
OPERATOR = "For operators"

for name, group, panel in (
    ("datasets", datasets.app, WORK),
    ("jobs", jobs.app, WORK),
    ("models", models.app, WORK),
    ("recipes", recipes.app, WORK),
    ("verdicts", verdicts.app, WORK),
    ("keys", keys.app, OPERATOR),
    ("projects", projects.app, OPERATOR),
    ("webhooks", webhooks.app, OPERATOR),
):
    app.add_typer(group, name=name, rich_help_panel=panel)
for panel, commands in (
    (
        WORK,
        (
            judge.judge,
            evaluate.evaluate,
            evaluate.batch,
            evaluate.review,
            models.register,
            models.export,
            models.promote,
            controls.controls,
            plan.plan,
            usage.usage,
        ),
    ),
    (STACK, (stack.up, stack.down, stack.status, stack.demo)),
    (OPERATOR, (audit.audit, stack.migrate, keeping.backup, keeping.restore, keeping.gc)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
