"""What schemathesis needs to know of this API (schemathesis.toml names it)."""

from __future__ import annotations

import os
from typing import Any

import httpx
import schemathesis

LINES = ("application/x-ndjson", "application/vnd.apache.parquet", "text/csv")


@schemathesis.serializer(*LINES)
def lines(context: Any, value: Any) -> Any:
    """A body that is text of its own kind, or no text at all."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A good Idempotency-Key is a new one, as it must be for a new request; and the project that
    the run itself belongs to gets no limits, or all that follows is 429."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 0 < len(key) < 200:
        case.headers["Idempotency-Key"] = f"{key}-{os.urandom(8).hex()}"
    if case.method == "PATCH" and (case.path_parameters or {}).get("project_id") == "default":
        case.path_parameters["project_id"] = "support"


if os.environ.get("SCHEMATHESIS_OPEN"):

    @schemathesis.hook
    def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
        """The document is that of a closed gateway; an open one asks for no key."""
        for path in raw_schema["paths"].values():
            for operation in path.values():
                operation.pop("security", None)


if MINT := os.environ.get("SCHEMATHESIS_MINT"):

    @schemathesis.auth(refresh_interval=1)
    class Key:
        """A new key every second: the run finds its own in the list of keys, and revokes it."""

        def get(self, case: Any, context: Any) -> str:
            body = {
                "name": f"schemathesis {os.urandom(8).hex()}",
                "scopes": ["read", "write", "judge", "promote", "admin"],
            }
            answer = httpx.post(f"{MINT}/v1/keys", json=body).raise_for_status()
            return str(answer.json()["secret"])

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
