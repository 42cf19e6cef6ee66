"""Logs of every process: a line each, as JSON or as text, with the ids of what was being done.

Ids follow the context, as in :mod:`contextvars`: tasks and `to_thread` have their starter's, a
plain thread has none. What somebody sent can neither begin a line of its own nor make one long, and
what looks like a secret is left out.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

from sqlalchemy import make_url

from selftaught import telemetry, tenancy
from selftaught.settings import get_settings

MOST = 8192
"""Characters of a message, and of an exception's text at either end."""
VARIABLE: Final = "SELFTAUGHT_LOG_IDS"
"""In a child's environment: the ids of its parent's context, as JSON."""
FIELDS: Final = ("request_id", "job_id", "chunk_id", "stage", "iteration", "attempt")
"""Ids that a context may have, beside project, trace_id and span_id."""
_REDACTED: Final = "[redacted]"
_QUIET = ("httpx", "httpcore", "urllib3", "botocore", "aiobotocore", "s3fs", "fsspec")
"""They tell of every request, with its address, at INFO."""
_SECRET = re.compile(
    r"\bst_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"  # our API keys
    r"|\bwhsec_[A-Za-z0-9+/=]+"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|(?<=\bbearer )[^\s'\"]+|(?<=\bbasic )[A-Za-z0-9+/=]{6,}"
    r"|(?<=://)[^/\s@'\"]{1,256}(?=@)"  # user and password of a URL
    r"|(?<=\?)[^\s'\"<>=]{0,64}=[^\s'\"<>]*",  # its query
    re.IGNORECASE,
)
_NAMED = re.compile(r"(KEY|SECRET|PASSWORD|TOKEN)$|_ENDPOINT_KEY_")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
    10: "\\n",
    13: "\\r",
    9: "\t",
}

_ids: ContextVar[Mapping[str, str]] = ContextVar("selftaught_log_ids", default={})  # noqa: B039


@contextmanager
def bound(**ids: str | int | None) -> Iterator[None]:
    """Lines of the block have these ids (of FIELDS), and none of the context's others."""
    token = _ids.set({name: str(value) for name, value in ids.items() if value is not None})
    try:
        yield
    finally:
        _ids.reset(token)


def current(name: str) -> str | None:
    """An id of this context."""
    return _ids.get().get(name)


def environment() -> dict[str, str]:
    """What a child process is given, so that its lines have the ids of this context."""
    project = tenancy.current()
    ids = dict(_ids.get()) if project is None else {**_ids.get(), "project": project}
    return {VARIABLE: json.dumps(ids)}


def setup() -> None:
    """Once per process, by its main program: all loggers write here, to standard error."""
    settings = get_settings()
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(settings.role, settings.log_format == "json"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")  # before their libraries are loaded: bars are no lines
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    _ids.set(json.loads(os.environ.get(VARIABLE, "{}")))


class Formatter(logging.Formatter):
    """`service`: whose lines they are. `as_json`: else text."""

    def __init__(self, service: str, as_json: bool) -> None:
        super().__init__()
        self._service, self._json = service, as_json
        self._known = _known_secrets()

    def format(self, record: logging.LogRecord) -> str:
        """One line; in text, an exception's lines follow it, each with a mark."""
        told = self._told(_message(record), MOST)
        ids = _context()
        error = self._exception(record)
        at = datetime.fromtimestamp(record.created, UTC)
        if self._json:
            line: dict[str, str] = {
                "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "level": record.levelname,
                "logger": record.name,
                "message": told,
                "service": self._service,
                **ids,
            }
            return json.dumps(line if error is None else {**line, "exception": error})
        about = " ".join(f"{name}={value}" for name, value in ids.items())
        head = f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03d} {record.levelname}"
        head = f"{head} {record.name} [{about}]" if about else f"{head} {record.name}"
        text = f"{head} {told.translate(_CONTROL)}"
        if error is None:
            return text
        return "\n".join([text, *(f"  | {one.translate(_CONTROL)}" for one in error.splitlines())])

    def _exception(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        elif record.stack_info:
            text = record.stack_info
        else:
            return None
        if len(text) > 2 * MOST:  # the beginning says where, the end what
            text = f"{text[:MOST]}\n..\n{text[-MOST:]}"
        return self._told(text, 2 * MOST + 4)

    def _told(self, text: str, most: int) -> str:
        """Without secrets, and not longer than `most`."""
        text = text[: 2 * most]
        for secret in self._known:
            text = text.replace(secret, _REDACTED)
        text = _SECRET.sub(_REDACTED, text)
        return text if len(text) <= most else f"{text[: most - 2]}.."


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 a slip in a line must not print its arguments elsewhere
        return f"{record.msg} (its arguments do not fit)"


def _context() -> dict[str, str]:
    """The ids of what is being done here."""
    found = _ids.get()
    ids = {name: found[name] for name in FIELDS if name in found}
    project = tenancy.current() or found.get("project")
    if project is not None:
        ids["project"] = project
    if (traced := telemetry.ids()) is not None:
        ids["trace_id"], ids["span_id"] = traced
    return ids


def _known_secrets() -> list[str]:
    """Values of the environment's secrets and Postgres's password, the longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if _NAMED.search(name) and not name.endswith("_FILE")
    }
    found.add(str(make_url(get_settings().database_url).password or ""))
    return sorted((one for one in found if len(one) >= 6), key=len, reverse=True)


def _uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    logging.getLogger("selftaught").critical(
        "the process ends: %s", kind.__name__, exc_info=(kind, error, where)
    )


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread is not None else "a thread"
    logging.getLogger("selftaught").error(
        "%s ends: %s",
        name,
        args.exc_type.__name__,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )
