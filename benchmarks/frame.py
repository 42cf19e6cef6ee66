"""What every benchmark of `make bench` has in common: turns, ratios, and how they are published.

A benchmark measures two sides in turns and publishes rows; `benchmarks/bench.py` runs them all and
writes docs/benchmarks.md from what they published. All ratios are ours by the peer's.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ("docs/benchmarks.md", "docs/results.md")
PAIRS = 5
"""Both sides are measured so often, at least."""


@dataclass(frozen=True)
class Row:
    """One comparison: what ours and the peer measured, turn by turn, in `unit`."""

    what: str
    peer: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    at_least: float | None = None
    """The aim for the median of ours by theirs, where more is better."""
    at_most: float | None = None
    """The same where less is better."""
    missing: str | None = None
    """Why the peer could not be measured; then there are no figures."""
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        pairs = zip(self.ours, self.theirs, strict=True)
        object.__setattr__(self, "ratios", [mine / other for mine, other in pairs])

    @property
    def ratio(self) -> float | None:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without an aim or without figures."""
        if self.ratio is None or (self.at_least is None and self.at_most is None):
            return None
        enough = self.at_least is None or self.ratio >= self.at_least
        return enough and (self.at_most is None or self.ratio <= self.at_most)


def in_turns(
    sides: Mapping[str, Callable[[], float]], pairs: int = PAIRS
) -> dict[str, list[float]]:
    """Each side's figure of each turn; who begins changes from turn to turn."""
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(pairs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(sides[name]())
        told = ", ".join(f"{name} {figures[-1]:,.3f}" for name, figures in found.items())
        print(f"turn {turn + 1} of {pairs}: {told}", flush=True)
    return found


def publish(
    name: str, rows: Sequence[Row], notes: Sequence[str] = (), packages: Sequence[str] = ()
) -> None:
    """Print the rows and write them to $BENCH_JSON, if that is set.

    `notes`: what a reader has to know (conditions, absolute figures, why an aim is missed).
    `packages`: ours, whose versions matter; a peer's belong into the notes.
    """
    for row in rows:
        print(line(row), flush=True)
    for note in notes:
        print(f"- {note}")
    if not (out := os.environ.get("BENCH_JSON")):
        return
    found = {
        "name": name,
        "machine": machine.name(),
        "versions": {package: version(package) for package in packages},
        "commit": commit(),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "rows": [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows],
        "notes": list(notes),
    }
    Path(out).write_text(json.dumps(found, indent=1))


def line(row: Row) -> str:
    """A row in words."""
    if row.missing:
        return f"{row.what}: {row.peer} could not be measured ({row.missing})"
    ours, theirs = statistics.median(row.ours), statistics.median(row.theirs)
    spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}, {len(row.ratios)} pairs"
    aim = {None: "", True: "; met", False: "; MISSED"}[row.met]
    return (
        f"{row.what}: {told(ours)} against {row.peer} {told(theirs)} {row.unit}, "
        f"ratio {row.ratio:.2f} ({spread}){aim}"
    )


def told(figure: float) -> str:
    """With four digits that mean something, or all before the point."""
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.4g}"


def commit() -> str:
    """The code that ran, marked if files differ from it; what benchmarks write does not count."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", *(f":!{page}" for page in WRITTEN))
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")
