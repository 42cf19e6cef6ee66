"""OpenAI's way to say things, where its clients call us: errors and chunks; pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from selftaught.sse import END

DONE = b"data: [DONE]" + END
"""The last event of a stream."""
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    "invalid_key": "invalid_api_key",
    "key_required": "invalid_api_key",
    "quota_exceeded": "insufficient_quota",
    "too_long": "context_length_exceeded",
    "unknown_model": "model_not_found",
}
"""Codes that clients know by another name."""


def error_of(problem: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of an error, from a problem (RFC 9457). What is wrong with a request is 400,
    as OpenAI has no 422."""
    status, code, told = problem["status"], problem["code"], problem.get("detail")
    first: Mapping[str, Any] = next(iter(problem.get("errors", ())), {})
    if first.get("type") == "extra_forbidden":
        code, told = "unsupported_parameter", f"{first['field']}: this is not supported here"
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    param = problem.get("param") or ("model" if code == "unknown_model" else None)
    error = {
        "message": told or problem["title"],
        "type": kind,
        "param": param,
        "code": _CODES.get(code, code),
    }
    return 400 if status == 422 else status, {"error": error}


def chunk(data: Mapping[str, Any]) -> bytes:
    """An event without a name, with JSON as its data; in ASCII, as :func:`selftaught.sse.event`."""
    return f"data: {json.dumps(data)}".encode() + END


def failed(problem: Mapping[str, Any]) -> bytes:
    """The end of a stream that fails: the error, and that nothing follows."""
    return chunk(error_of(problem)[1]) + DONE
