"""A job's events as lines, where there is no terminal: for people, or as JSON."""

from __future__ import annotations

import json

from rich.console import Console
from rich.text import Text

from selftaught.cli.gateway import Json
from selftaught.cli.output import emit_line, note, safe
from selftaught.cli.watch import Event, Item, Lost, Snapshot
from selftaught.iterations import row_of

LONGEST = 160


class Lines:
    """Writes what is worth a line, of progress every tenth part; or each event as JSON. That the
    gateway is away goes to stderr."""

    def __init__(self, console: Console, as_json: bool = False) -> None:
        self._console, self._as_json = console, as_json
        self._tenths: dict[str, int] = {}
        self._scored: set[int] = set()
        self._lost = False

    def tell(self, item: Item) -> None:
        """Write the lines that tell of it, if any."""
        if isinstance(item, Lost):
            note(f"the gateway is away ({item.why}): reconnecting in {item.pause:g} s")
        elif self._lost:
            note("the gateway is back")
        self._lost = isinstance(item, Lost)
        if self._as_json and isinstance(item, Event):
            emit_line(item.body)
        elif not self._as_json:
            for line in self._of(item):
                self._console.print(Text(safe(line)))

    def _of(self, item: Item) -> list[str]:
        if isinstance(item, Snapshot):
            rows = [row for row in map(row_of, item.iterations) if row]
            fresh = [row for row in rows if row["iteration"] not in self._scored]
            self._scored |= {row["iteration"] for row in fresh}
            return [_scored(row) for row in fresh]
        if isinstance(item, Event):
            text = self._text(item.body["type"], item.body["data"])
            return [f"{item.body['created_at'][11:19]}  {text}"] if text else []
        return []

    def _text(self, kind: str, data: Json) -> str | None:
        where = f"iteration {data['iteration']}: " if data.get("iteration") is not None else ""
        if kind == "stage.progress":
            if not self._tenth(data["stage"], data["done"], data["of"]):
                return None
            return f"{data['stage']} {data['done']}/{data['of']}"
        if kind == "train.step":
            if not self._tenth("train", data["step"], data["steps"]):
                return None
            return f"{where}train {data['step']}/{data['steps']}, loss {data['loss']:.3f}"
        if kind == "stage.started":
            self._tenths.pop(data["stage"], None)
            return f"{where}{data['stage']} started, chunks: {data['chunks']}"
        if kind == "stage.succeeded":
            counts = ", ".join(f"{name} {count}" for name, count in data["counts"].items())
            return _short(f"{where}{data['stage']} done" + (f": {counts}" if counts else ""))
        if kind == "version.published":
            return f"{where}version {data['version']} published"
        if kind in ("iteration.started", "iteration.succeeded"):
            return f"iteration {data['iteration']} {kind.partition('.')[2]}"
        if kind == "job.failed":
            return f"job failed: {data.get('detail')} ({data.get('code')})"
        rest = {name: value for name, value in data.items() if name != "iteration"}
        return _short(f"{where}{kind.replace('.', ' ')}" + (f" {json.dumps(rest)}" if rest else ""))

    def _tenth(self, what: str, done: int, of: int) -> bool:
        """Whether another tenth of it is done."""
        tenth = done * 10 // max(of, 1)
        before = self._tenths.get(what, 0)
        self._tenths[what] = tenth
        return tenth > before


def _scored(row: Json) -> str:
    low, high = row["ci95"]
    name = "seed" if row["iteration"] == 0 else f"iteration {row['iteration']}"
    promoted = "is latest" if row["promoted"] else "is not promoted"
    return (
        f"          {name}: {row['model_version']} {promoted}, strict accuracy "
        f"{row['strict_accuracy']:.4f} ({low:.4f} to {high:.4f})"
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
