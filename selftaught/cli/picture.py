"""A job on a terminal: the iterations so far, and a bar for each stage that runs."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from selftaught.cli.gateway import Json
from selftaught.cli.output import duration, safe
from selftaught.cli.watch import ENDED, Event, Item, Lost, Snapshot
from selftaught.iterations import row_of

STATES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "red",
    "cancelling": "yellow",
    "paused": "yellow",
    "pausing": "yellow",
}


class Picture:
    """What is known of a job, drawn whenever it is asked for."""

    def __init__(self) -> None:
        self._job: Json = {}
        self._iterations: list[Json] = []
        self._seen = time.monotonic()
        """When the gateway told these two."""
        self._steps: dict[int, Json] = {}
        """Iteration -> its training's last step."""
        self._lost: Lost | None = None
        self._spinner = Spinner("dots")

    def apply(self, item: Item) -> None:
        """Take in what happened."""
        self._lost = item if isinstance(item, Lost) else None
        if isinstance(item, Snapshot):
            self._job, self._iterations = item.job, item.iterations
            self._seen = time.monotonic()
        elif isinstance(item, Event):
            self._apply(item.body["type"], item.body["data"])

    def _apply(self, kind: str, data: Json) -> None:
        """Between two snapshots: how far a stage is. News that is old by now, since the stream
        tells everything from the beginning, changes nothing."""
        if kind == "train.step":
            self._steps[data["iteration"]] = data
        elif kind == "stage.progress":
            for iteration in self._iterations:
                if iteration["state"] == "running":
                    for stage in iteration["stages"]:
                        if stage["kind"] == data["stage"]:
                            stage["chunks_done"] = max(stage["chunks_done"], data["done"])

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [self._head()]
        scored = [row for row in map(row_of, self._iterations) if row]
        if scored:
            parts.append(table(scored))
        for iteration in self._iterations:
            if iteration["state"] in ("running", "failed"):
                parts.append(self._stages(iteration))
        if self._lost is not None:
            self._spinner.update(text=lost_text(self._lost), style="yellow")
            parts.append(self._spinner)
        return Group(*parts)

    def _head(self) -> Text:
        job = self._job
        if not job:
            return Text("")
        head = Text.assemble(
            (job["id"], "bold"), "  ", safe(str(job["recipe"].get("name") or job["kind"])), " -> ",
            safe(job["model"]), "  ", (job["state"], STATES.get(job["state"], "cyan")),
        )  # fmt: skip
        if job["state"] not in ENDED:
            head.append(f"  {far(job, time.monotonic() - self._seen)}")
        return head

    def _stages(self, iteration: Json) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(min_width=10)
        grid.add_column(width=30)
        grid.add_column(justify="right")
        grid.add_column(justify="right")
        grid.add_column()
        for stage in iteration["stages"]:
            state, seconds = stage["state"], stage["seconds"]
            done, of, told = stage["chunks_done"], stage["chunks"], ""
            if state == "running":
                seconds = (seconds or 0.0) + time.monotonic() - self._seen
                step = self._steps.get(iteration["number"])
                if stage["kind"] == "train" and step is not None:
                    done, of, told = step["step"], step["steps"], f"loss {step['loss']:.3f}"
                mark, style = ">", "cyan"
            else:
                mark, style = {"succeeded": ("✓", "green"), "failed": ("✗", "red")}.get(
                    state, ("·", "dim")
                )
            bar: RenderableType = ""
            if state == "running":
                bar = ProgressBar(total=max(of, 1), completed=done, width=30)
            grid.add_row(
                Text(f"{mark} {stage['kind']}", style=style),
                bar,
                f"{done}/{of}" if of > 1 else "",
                duration(seconds) if state != "pending" else "",
                Text(told, style="dim"),
            )
        title = "seed" if iteration["number"] == 0 else f"iteration {iteration['number']}"
        return Group(Text(title, style="bold"), grid)


def far(job: Json, passed: float = 0.0) -> str:
    """How far a job is, and how long it may still take, `passed` seconds after it was told."""
    progress = job["progress"]
    text = f"{progress['share']:.0%}"
    if progress["eta_seconds"] is not None:
        text += f", about {duration(max(0.0, progress['eta_seconds'] - passed))} left"
    return text


def table(rows: Iterable[Json]) -> Table:
    """One line per scored iteration, 80 columns wide; iteration 0 is the seed."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("iteration")
    out.add_column("version", overflow="fold")
    for title in ("examples", "accuracy", "95 % interval", "bias", "latest", "time"):
        out.add_column(title, justify="right")
    for row in rows:
        low, high = row["ci95"]
        out.add_row(
            "seed" if row["iteration"] == 0 else str(row["iteration"]),
            Text(safe(str(row["model_version"]))),
            f"{row['training_examples']:,}",
            Text(f"{row['strict_accuracy']:.3f}", style="bold"),
            f"{low:.3f}-{high:.3f}",
            f"{row['position_bias']:+.3f}",
            "yes" if row["promoted"] else "no",
            duration(row["seconds"]),
        )
    return out


def lost_text(lost: Lost) -> str:
    """That the gateway is away, and what is done about it."""
    return safe(f"the gateway is away ({lost.why}): reconnecting, try {lost.tries}")
