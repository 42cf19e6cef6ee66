"""What is sent and what comes back, made into Python: no requests here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from selftaught.client.errors import ApiError
from selftaught.contracts import ChatMessage

Json = dict[str, Any]
T = TypeVar("T", bound=BaseModel)


def url(*parts: object) -> str:
    """The path of these parts, each quoted. Raises ValueError for one that cannot be a name."""
    texts = [str(part) for part in parts]
    if wrong := [text for text in texts if text in ("", ".", "..")]:
        raise ValueError(f"{wrong[0]!r} is not a name")
    return "/" + "/".join(quote(text, safe="") for text in texts)


def given(**fields: Any) -> Json:
    """The fields that are not None; for all others the server's own defaults hold."""
    return {name: value for name, value in fields.items() if value is not None}


def asked(instruction: str | Sequence[ChatMessage | Mapping[str, str]]) -> Json:
    """`instruction`, or `messages` if it is a conversation."""
    if isinstance(instruction, str):
        return {"instruction": instruction}
    return {"messages": [plain(message) for message in instruction]}


def plain(row: BaseModel | Mapping[str, Any]) -> Json:
    """A row as JSON has it."""
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json", exclude_none=True)
    return dict(row)


def moment(time: dt.datetime | str | None) -> str | None:
    """A time as the API reads it."""
    return time.isoformat() if isinstance(time, dt.datetime) else time


def parse(model: type[T], body: Any) -> T:
    """An answer as its contract. Fields that this client does not know are left out.

    Raises ApiError `unexpected_answer` for what is no such answer.
    """
    try:
        return model.model_validate(body, extra="ignore", strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise unexpected(200, f"{where}: {first['msg']}") from error


def body_of(response: httpx.Response) -> Json:
    """The JSON object of an answer; empty without any. Raises ApiError."""
    if not response.is_success:
        raise refusal(response)
    if not response.content:
        return {}
    try:
        body = response.json()
    except ValueError as error:
        raise unexpected(response.status_code, "no JSON") from error
    if not isinstance(body, dict):
        raise unexpected(response.status_code, "no JSON object")
    return body


def refusal(response: httpx.Response) -> ApiError:
    """The error that an answer is; it may come from a proxy, without a problem in it."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "code" not in body:
        detail = response.headers.get("location") or response.reason_phrase
        body = {"code": "http_error", "detail": detail}
    return ApiError(response.status_code, body, retry_after(response))


def unexpected(status: int, what: str) -> ApiError:
    """An answer that no gateway of this client's version gives."""
    detail = f"the answer is not one that this client knows ({what})"
    return ApiError(status, {"code": "unexpected_answer", "detail": detail})


def retry_after(response: httpx.Response) -> float | None:
    """Seconds, from the header; None without it."""
    wanted = response.headers.get("retry-after", "")
    return float(wanted) if wanted.isdigit() else None


def passing(response: httpx.Response) -> float | None:
    """Seconds after which a call may be sent again; None: it would be answered in the same way."""
    status = response.status_code
    if status == 504 and "problem+json" in response.headers.get("content-type", ""):
        return None  # the question's own time is over, and no proxy's
    if status in (502, 503, 504) or (status in (409, 429) and "retry-after" in response.headers):
        return retry_after(response) or 0.0
    return None
