"""What routes ask for: page cursors, and JSON bodies that Postgres can store."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from pydantic import AwareDatetime, BeforeValidator

from selftaught.http import Refused

MAX_DEPTH = 32
LARGEST = 2**31 - 1

Name = Annotated[str, Path(description="A model's name.", examples=["tour"])]
Number = Annotated[int, Path(ge=0, le=LARGEST, description="A version's number.", examples=[1])]
Limit = Annotated[int, Query(ge=1, le=100, description="Items per page.")]
Seq = Annotated[int, Query(ge=0, le=2**63 - 1, description="Events after this number.")]
Cursor = Annotated[
    str | None, Query(max_length=128, description="Id of the last item of the page before.")
]
JobId = Annotated[str, Path(description="A job's id.", examples=["job_019ac5a1c3d08f2a5b7c9d0e"])]


def _written(value: object) -> object:
    """A date and a time, as RFC 3339 writes them; pydantic takes a bare number for one, too."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]", value):
        raise ValueError("a date and time as in RFC 3339, such as 2026-11-27T09:00:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_written)]


async def _storable(request: Request) -> None:
    """Refuse JSON that parses but cannot be stored: NUL, half surrogates, NaN, deep nesting."""
    if not await request.body():
        return
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        return  # the route's own body validation answers this
    problem = unstorable(body)
    if problem is not None:
        raise Refused(422, "invalid_request", f"the body contains {problem}")


def unstorable(value: Any) -> str | None:
    """What in a JSON value Postgres or JSON itself would refuse; None if nothing."""
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            return f"more than {MAX_DEPTH} levels of nesting"
        if isinstance(item, dict):
            stack.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            stack.extend((part, depth + 1) for part in item)
        elif isinstance(item, str) and (found := bad_text(item)):
            return found
        elif isinstance(item, float) and not math.isfinite(item):
            return "a number that is not finite"
    return None


def bad_text(text: str) -> str | None:
    """Why a string cannot be stored; None if it can."""
    if "\0" in text:
        return "a NUL character"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "half of a surrogate pair"
    return None


StorableBody = Depends(_storable)
