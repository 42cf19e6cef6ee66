"""What went wrong, in a line or two, and what to do about it. People see no tracebacks.

Exit codes: 0 done, 1 failed, 2 not used as it should be (typer's own), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from selftaught.cli.gateway import NoGateway
from selftaught.cli.output import err, note, safe

if TYPE_CHECKING:
    import httpx
    from pydantic import ValidationError

    from selftaught.client import ApiError

FAILED = 1
INTERRUPTED = 130
SHOWN = 20
"""Errors of one upload that are shown."""

FIRST = ("datasets", "jobs", "judge", "models")
"""The commands that help names first."""

_SENTENCES = {
    "selftaught.architectures": ("Unplanned",),
    "selftaught.client": ("JobFailed",),
    "selftaught.export": ("ExportError",),
    "selftaught.keeping.backup": ("BackupError",),
    "selftaught.keeping.locks": ("Held",),
    "selftaught.keys": ("KeyRefused",),
    "selftaught.registry": ("UnknownName",),
    "selftaught.stack.spec": ("StackError",),
    "selftaught.store": ("StoreError",),
    "yaml": ("YAMLError",),
}
"""Errors whose text is for the person who asked, by the module that has them."""

_EXTRAS = dict.fromkeys(("torch", "transformers", "peft", "safetensors", "accelerate"), "trainer")
_EXTRAS["psutil"] = "all"  # what starts a stack starts every service
"""Package -> the extra that brings it; the others come with `stack`."""

_HINTS = {
    "gate_refused": "a key with scope promote may do it all the same: --force --reason '..'",
    "dataset_not_found": "`selftaught datasets list` shows those there are",
    "job_not_found": "`selftaught jobs list` shows those there are",
    "model_not_found": "`selftaught models list` shows those there are",
    "unknown_model": "`selftaught models list` shows those there are",
    "version_not_found": "`selftaught models versions NAME` shows those there are",
    **dict.fromkeys(
        ("recipe_not_found", "unknown_recipe"),
        "`selftaught recipes list` shows them; a file works too: --recipe mine.yaml",
    ),
    "invalid_recipe": "`selftaught recipes show NAME` has every setting as --set takes it",
    "no_such_data": "`selftaught jobs data JOB` shows what there is",
    "nothing_to_roll_back_to": "any version: selftaught models promote NAME:NUMBER, with --alias "
    "for another alias than latest, with --force --reason '..' past the gate",
    "url_refused": "the gateway allows networks of your own by SELFTAUGHT_WEBHOOK_NETWORKS: "
    "docs/webhooks.md",
    "job_not_ended": "`selftaught jobs cancel JOB` first",
    "quota_exceeded": "`selftaught usage` shows what is used and when it begins anew",
    "missing_scope": "SELFTAUGHT_API_KEY is to be a key that has it",
    "http_error": "is this the address of a selftaught gateway?",
    "unexpected_answer": "is this the address of a selftaught gateway of this version?",
}
"""What to do about a problem of the API, by its code."""


class Failed(Exception):
    """The command cannot do what it was asked; the text is for who asked, `hint` what to do."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint


class Group(TyperGroup):
    """The root of all commands: whatever they raise ends in a line or two and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """What most people do first comes first."""
        names = list(self.commands)
        return [*filter(names.__contains__, FIRST), *(one for one in names if one not in FIRST)]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            own = isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code")
            if own or isinstance(error, BrokenPipeError):  # as of `.. | head`
                raise  # typer's to handle
            if os.environ.get("SELFTAUGHT_TRACEBACK"):
                raise
            tell(error)
            raise typer.Exit(FAILED) from error


def tell(error: Exception) -> None:
    """Write to stderr what is wrong and what to do about it."""
    text, hint = explain(error)
    note(f"error: {text}", style="red" if err.is_terminal else None)
    found = _problem(error).get("errors") or []
    lines = [(_place(one), str(one.get("message") or one.get("detail"))) for one in found]
    if len(lines) > 1 or any(what not in text for _, what in lines):
        _tell_each(lines)
    if hint:
        note(hint)


def explain(error: Exception) -> tuple[str, str | None]:
    """What is wrong, and what to do about it if that can be said."""
    if isinstance(error, Failed):
        return str(error), error.hint
    if isinstance(error, NoGateway):
        return str(error), None
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name != "selftaught":
            extra = _EXTRAS.get(name, "stack")
            return (
                f"this command needs the package {name!r}, which is not installed",
                "selftaught is installed from its clone: `make setup` there, or "
                f"pip install 'PATH/TO/selftaught[{extra}]'",
            )
    if _is(error, "selftaught.client", "ApiError"):
        return _of_the_api(error)  # type: ignore[arg-type]
    if _is(error, "httpx", "TransportError"):
        return _without_an_answer(error)  # type: ignore[arg-type]
    if _is(error, "pydantic_core", "ValidationError"):
        return _of_settings(error), None  # type: ignore[arg-type]
    if _is(error, "sqlalchemy.exc", "ProgrammingError"):
        told = getattr(error, "orig", error)
        return f"not this version's schema ({told})", "run: selftaught migrate"
    if _is(error, "sqlalchemy.exc", "OperationalError") or _is(
        error, "psycopg", "OperationalError"
    ):
        told = getattr(error, "orig", error)
        return f"no database: {told}", "is the server of DATABASE_URL up? `selftaught status`"
    for module, names in _SENTENCES.items():
        if any(_is(error, module, name) for name in names):
            return str(error), None
    if isinstance(error, OSError | TimeoutError):
        return str(error), None
    return (
        f"something that should not happen: {type(error).__name__}: {error}",
        "with SELFTAUGHT_TRACEBACK=1 the same command shows where; please report it",
    )


def _of_the_api(error: ApiError) -> tuple[str, str | None]:
    problem = error.problem
    code = str(problem.get("code"))
    text = f"{problem.get('detail')} ({error.status} {code})"
    hint = _HINTS.get(code)
    if error.status == 401:
        hint = (
            "set SELFTAUGHT_API_KEY to a key of this gateway; its operator makes one with "
            "`selftaught keys create`"
        )
    elif error.status >= 500 and problem.get("request_id"):
        hint = f"the gateway's log says more, at request id {problem['request_id']}"
    return text, hint


def _of_settings(error: ValidationError) -> str:
    """Each wrong setting by its path; those of the environment by their variable."""
    from selftaught.recipes import what_is_wrong

    lines = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(map(str, one["loc"])) or error.title
        if error.title == "Settings" and not name.isupper():
            name = f"SELFTAUGHT_{name.upper()}"
        what = what_is_wrong(one) if error.title == "Recipe" else one["msg"]
        lines.append(f"{name}: {what.removeprefix('Value error, ')}")
    return "\n".join(lines)


def _without_an_answer(error: httpx.TransportError) -> tuple[str, str | None]:
    import httpx

    url = _url(error)
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return f"{url} did not answer in time", "the work may go on there: look before you repeat"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return (
            f"no gateway at {url} ({error})",
            "start one with `selftaught up`, or set SELFTAUGHT_URL to where it is",
        )
    return (
        f"the connection to {url} broke off ({error})",
        "`selftaught jobs list` shows what goes on there",
    )


def _url(error: httpx.TransportError) -> str:
    try:
        url = error.request.url
    except RuntimeError:  # it was never sent
        return "the gateway"
    return f"{url.scheme}://{url.netloc.decode()}"


def _tell_each(lines: list[tuple[str, str]]) -> None:
    """What is wrong with each line, field or rule."""
    if err.is_terminal:
        from rich.table import Table
        from rich.text import Text

        table = Table("where", "what is wrong", box=None, pad_edge=False, header_style="bold")
        for line in lines[:SHOWN]:
            table.add_row(*(Text(safe(cell)) for cell in line))
        err.print(table)
    else:
        for where, what in lines[:SHOWN]:
            note(f"{where}: {what}")
    if len(lines) > SHOWN:
        note(f".. and {len(lines) - SHOWN} more")


def _place(one: dict[str, Any]) -> str:
    if "line" in one:
        return f"line {one['line']}" + (f", {one['field']}" if one.get("field") else "")
    return str(one.get("field") or one.get("rule"))


def _problem(error: Exception) -> dict[str, Any]:
    return error.problem if _is(error, "selftaught.client", "ApiError") else {}  # type: ignore[attr-defined]


def _is(error: Exception, module: str, name: str) -> bool:
    """Whether it is of this class; a module that is not loaded has raised nothing."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))
