"""A job's events as lines, where there is no terminal: for people, or as JSON."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from selftaught.cli.gateway import Json
from selftaught.cli.output import emit_line, note, safe
from selftaught.cli.watch import Event, Item, Lost, Snapshot
from selftaught.iterations import row_of

TOLD = {
    "select": ("rows", "selected"),
    "pair": ("instructions", "pairs"),
    "judge": ("judged_pairs", "judgments_sampled", "judgments_right"),
    "curate": ("judgments_kept", "training_examples"),
    "train": ("steps", "train_tokens"),
    "validate": ("scored_pairs",),
}
"""Stage -> its counts that are told."""


class Lines:
    """Writes what is worth a line, of progress every tenth part; or each event as JSON. That the
    gateway is away goes to stderr."""

    def __init__(self, console: Console, as_json: bool = False) -> None:
        self._console, self._as_json = console, as_json
        self._tenths: dict[str, int] = {}
        self._rows: dict[int, Json] = {}
        """Iteration -> how good its version is, as far as that is known."""
        self._untold: set[int] = set()
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
        lines = []
        if isinstance(item, Snapshot):
            rows = [row for row in map(row_of, item.iterations) if row]
            self._rows = {row["iteration"]: row for row in rows}
        elif isinstance(item, Event):
            kind, data = item.body["type"], item.body["data"]
            if text := self._text(kind, data):
                lines.append(f"{item.body['created_at'][11:19]}  {text}")
            if kind == "iteration.succeeded":
                self._untold.add(data["iteration"])
        known = sorted(self._untold & self._rows.keys())
        self._untold -= set(known)
        return [*lines, *(_scored(self._rows[number], self._rows.get(0)) for number in known)]

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
            return f"{where}{data['stage']} done" + _counts(data["stage"], data["counts"])
        if kind == "version.published":
            return f"{where}version {data['version']} published"
        if kind in ("iteration.started", "iteration.succeeded"):
            return f"iteration {data['iteration']} {kind.partition('.')[2]}"
        if kind == "job.failed":
            return f"job failed: {data.get('detail')} ({data.get('code')})"
        if kind == "gate.decided":
            failed = [reason for reason in data["reasons"] if reason.endswith("failed")]
            return f"{where}gate: " + ("; ".join(failed) or "passed")
        plain = [
            f"{name} {value}"
            for name, value in data.items()
            if name not in ("iteration", "pid") and isinstance(value, str | int | float)
        ]
        return f"{where}{kind.replace('.', ' ')}" + (f": {', '.join(plain)}" if plain else "")

    def _tenth(self, what: str, done: int, of: int) -> bool:
        """Whether another tenth of it is done."""
        tenth = done * 10 // max(of, 1)
        before = self._tenths.get(what, 0)
        self._tenths[what] = tenth
        return tenth > before


def _scored(row: Json, seed: Json | None) -> str:
    low, high = row["ci95"]
    name = "seed" if row["iteration"] == 0 else f"iteration {row['iteration']}"
    promoted = "is latest" if row["promoted"] else "is not promoted"
    return (
        f"          {name}: {row['model_version']} {promoted}, strict accuracy "
        f"{row['strict_accuracy']:.4f} ({low:.4f} to {high:.4f})"
        f"{_against(row, seed)}"
    )


def _against(row: Json, seed: Json | None) -> str:
    """Whether the 95 % interval leaves the seed's accuracy out, as the dashboard tells it."""
    if seed is None or row["iteration"] == 0:
        return ""
    low, high = row["ci95"]
    if low > seed["strict_accuracy"]:
        return ", better than the seed"
    if high < seed["strict_accuracy"]:
        return ", worse than the seed"
    return ", no difference from the seed can be seen"


def _counts(stage: str, counts: Json) -> str:
    """What most people want to know of a stage; `jobs show --json` has the rest."""
    names = [name for name in TOLD.get(stage, ()) if name in counts] or list(counts)[:3]
    told = ", ".join(f"{name.replace('_', ' ')} {counts[name]:,}" for name in names)
    return f": {told}" if told else ""
