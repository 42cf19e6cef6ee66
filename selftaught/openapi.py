"""The OpenAPI document of a service: what holds for every route is written once, here.

Pure functions over the document as FastAPI makes it; no web framework in this module.
"""

from __future__ import annotations

import copy
import re
from http import HTTPStatus
from typing import Any

from selftaught.contracts import Problem

Json = dict[str, Any]

PROBLEM_TYPE = "application/problem+json"
_METHODS = ("get", "put", "post", "delete", "patch")
_REF = "#/components/schemas/{model}"
_EXAMPLES: dict[int, tuple[str, str, str | None]] = {
    400: ("invalid_json", "the body is not valid JSON", None),
    401: ("invalid_key", "there is no such key, or it was revoked", None),
    403: ("missing_scope", "key 'ada' lacks the scope 'promote'", None),
    404: ("job_not_found", "there is no job 'job_0'", None),
    408: ("body_timeout", "nothing more of the body came for 30 s", None),
    409: ("no_model", "no version of 'tour' has been promoted to 'latest'", None),
    410: ("data_removed", "the files of job 'job_0' were removed at 2026-11-27 09:00", None),
    412: ("revision_mismatch", "alias 'latest' is at revision 3, not 2", None),
    413: ("body_too_large", "the body is larger than 4194304 bytes", None),
    415: ("unsupported_format", "cannot read application/zip", None),
    422: ("invalid_request", "limit: Input should be less than or equal to 100", "limit"),
    429: ("too_many_calls", "64 calls are being answered", None),
    500: ("internal_error", "an unexpected error; it is logged under this request id", None),
    502: ("engine_refused", "the model's endpoint refused to answer", None),
    503: ("database_unavailable", "the database cannot be reached; try again soon", None),
    504: ("deadline_exceeded", "no answer within 120 s", None),
    507: ("storage_full", "there is no room for this file", None),
}
"""A typical problem of each status: code, detail, param."""


def problem_response(status: int, code: str | None = None, detail: str | None = None) -> Json:
    """A status that is answered with a problem, with an example of it."""
    phrase = HTTPStatus(status).phrase
    typical = _EXAMPLES.get(status, (re.sub(r"\W+", "_", phrase.lower()), phrase, None))
    body = Problem(
        title=phrase,
        status=status,
        code=code or typical[0],
        detail=detail or typical[1],
        param=typical[2] if code is None else None,
        request_id="req_019ac5a83a47c2f91c2e3475",
        fault=None,
    )
    shown = body.model_dump(exclude_none=True)
    content = {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}, "example": shown}}
    return {"description": phrase, "content": content}


def completed(document: Json) -> Json:
    """A copy with what the routes themselves need not say.

    Each operation: its summary is the first sentence of its description; 400 and 500, and with
    parameters or a body 422, and with a body 408 and 413, are problems. Examples get back the nulls
    that FastAPI leaves out.
    """
    document = copy.deepcopy(document)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own; ours are problems
        schemas.pop(name, None)
    schemas.setdefault("Problem", Problem.model_json_schema(ref_template=_REF))
    for schema in schemas.values():
        if "examples" in schema:
            schema["examples"] = [_whole(one, schema, schemas) for one in schema["examples"]]
    for path in document["paths"].values():
        for method in _METHODS:
            if method in path:
                _complete(path[method])
    return document


def _complete(operation: Json) -> None:
    if operation.get("summary") == operation["operationId"].replace("_", " ").title():
        operation["summary"] = _first_sentence(operation.get("description", ""))
    for parameter in operation.get("parameters", ()):
        _as_sent(parameter["schema"], parameter["in"])
    responses = operation["responses"]
    common = [400, 500]
    if "requestBody" in operation:
        common += [408, 413, 422]
    elif "parameters" in operation:
        common += [422]
    for status in common:
        found = responses.get(str(status))
        if found is None or PROBLEM_TYPE not in found.get("content", {}):
            responses[str(status)] = problem_response(status)
    operation["responses"] = dict(sorted(responses.items()))


def _as_sent(schema: Json, place: str) -> None:
    """A parameter is left out; it is never null. And no address contains a NUL (http.py)."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]
    plain = schema.get("type") == "string" and not {"enum", "format", "pattern"} & schema.keys()
    if plain and place in ("path", "query"):
        schema["pattern"] = r"^[^\u0000]*$"


def _whole(example: Any, schema: Json, schemas: Json) -> Any:
    """The example, with null for every required field that is not there, at any depth."""
    schema = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
    if isinstance(example, list):
        return [_whole(part, schema.get("items", {}), schemas) for part in example]
    if not isinstance(example, dict):
        return example
    known = schema.get("properties", {})
    found = {name: _whole(part, known.get(name, {}), schemas) for name, part in example.items()}
    return found | {name: None for name in schema.get("required", ()) if name not in found}


def _first_sentence(text: str) -> str:
    """Up to the first full stop or question mark; a full stop is left out."""
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.?])\s", line)[0].removesuffix(".")
