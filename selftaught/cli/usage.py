"""``selftaught usage``: what the key's project has used, and how much it may use."""

from __future__ import annotations

from selftaught.cli.gateway import DEFAULT_HOME, Home, Url, at, connect
from selftaught.cli.output import AsJson, emit, moment, note, rows, size

_NAMES = {
    "requests": "requests in this minute",
    "tokens": "tokens today (UTC)",
    "gpu_seconds": "device seconds today (UTC)",
    "stored_bytes": "stored",
}


def usage(url: Url = None, home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show what the project of your key has used, and how much it may use."""
    with connect(url, home) as client:
        found = client.call("GET", at("usage"))
    if as_json:
        emit(found)
        return
    note(f"project {found['project']}")
    lines = []
    for key, name in _NAMES.items():
        if (spent := found[key]) is None:
            continue
        told = size if key == "stored_bytes" else "{:,.0f}".format
        limit = "no limit" if spent["limit"] is None else told(spent["limit"])
        again = moment(spent["resets_at"]) if spent["resets_at"] else "-"
        lines.append((name, told(spent["used"]), limit, again))
    rows(("what", "used", "limit", "begins anew"), lines)
