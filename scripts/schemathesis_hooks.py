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
