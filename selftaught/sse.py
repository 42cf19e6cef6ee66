"""Server-Sent Events (WHATWG HTML, section 9.2), written and read; knows nothing of HTTP."""

from __future__ import annotations

import json
from typing import Any

MEDIA_TYPE = "text/event-stream"
SCHEMA: dict[str, Any] = {"description": "Server-sent events."}
"""Of a stream, in an OpenAPI document: a text to some readers, its single events to others."""
END = b"\n\n"
"""What ends an event that :func:`event` wrote."""
KEEP_ALIVE = b": keep-alive" + END
"""A comment: readers skip it, and proxies see that somebody is there."""


def event(name: str, data: Any) -> bytes:
    """An event with JSON as its data. In ASCII: some readers take U+2028 and others for a line's
    end."""
    return f"event: {name}\ndata: {json.dumps(data)}".encode() + END


class Reader:
    """Finds the events in a stream, given its lines without their ends, one by one."""

    def __init__(self) -> None:
        self._name = ""
        self._data: list[str] = []

    def line(self, line: str) -> tuple[str, str] | None:
        """The event (name, data) that this line ends. Without a name it is a "message"."""
        if not line:
            name, data = self._name or "message", self._data
            self._name, self._data = "", []
            return (name, "\n".join(data)) if data else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        return None  # ids and times to try again are not used here; an empty field is a comment
