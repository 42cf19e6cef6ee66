"""All benchmarks against the neighbours, one after another, and the table of what they found.

    make bench                            writes docs/benchmarks.md and build/bench/NAME.json
    python -m benchmarks.bench [NAMES]    some of them; the others keep their figures

Each runs in a process of its own, for at most its minutes. One that fails is told in the table, and
`make bench` then ends with 1.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frame import ROOT, told

Json = dict[str, Any]
OUT = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Bench:
    """`python -m benchmarks.MODULE`, and the question that it answers."""

    question: str
    minutes: float
    """More than this is a failure."""


BENCHES: dict[str, Bench] = {
    "tokens": Bench("What does a kept judgment cost, and is the engine kept busy?", 20),
    "training": Bench("Does the trainer keep up with TRL's, and learn the same?", 16),
    "gateway": Bench("What do keys, projects and a database cost beside a bare route?", 6),
    "ingest": Bench("Does an upload keep up with Postgres's own bulk load?", 6),
    "growth": Bench("What grows: 1, 4 and 16 times the instructions, 1 to 100,000 jobs", 20),
    "overhead": Bench("How much of a job's time is its stages' own work?", 10),
    "leases": Bench("How many leases does this machine carry?", 6),
    "judging": Bench("Does judging a benchmark keep up with the runners, and agree?", 15),
}


def main() -> None:
    """Run, write the page, and say whether all ran."""
    names = sys.argv[1:] or list(BENCHES)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        run(name)
    found = {
        name: json.loads(file.read_text()) for name in BENCHES if (file := path(name)).exists()
    }
    PAGE.write_text(page(found))
    print(f"wrote {PAGE.relative_to(ROOT)}")
    failed = [name for name in names if "failed" in found.get(name, {"failed": ""})]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def path(name: str) -> Path:
    return OUT / f"{name}.json"


def run(name: str) -> None:
    """Have its JSON written: by itself, or here that it failed."""
    print(f"== {name}: {BENCHES[name].question}", flush=True)
    path(name).unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    env = {**os.environ, "BENCH_JSON": str(path(name))}
    try:
        code = subprocess.run(
            command, cwd=ROOT, env=env, timeout=60 * BENCHES[name].minutes, check=False
        ).returncode
        why = f"ended with {code}" if code else "published nothing"
    except subprocess.TimeoutExpired:
        why = f"took more than {BENCHES[name].minutes} minutes"
    seconds = time.monotonic() - began
    found = json.loads(path(name).read_text()) if path(name).exists() else {"failed": why}
    path(name).write_text(json.dumps({**found, "seconds": round(seconds)}, indent=1))
    print(f"== {name}: {seconds:.0f} s", flush=True)


def page(found: dict[str, Json]) -> str:
    """docs/benchmarks.md."""
    good = [one for one in found.values() if "failed" not in one]
    minutes = sum(one["seconds"] for one in found.values()) / 60
    machines = sorted({one["machine"] for one in good})
    commits = sorted({one["commit"] for one in good})
    lines = [HEAD.format(machine="; ".join(machines), commit=", ".join(commits), minutes=minutes)]
    for name, bench in BENCHES.items():
        one = found.get(name)
        lines.append(f"\n## {bench.question}\n`python -m benchmarks.{name}`")
        if one is None:
            lines.append("\nNot run.")
        elif "failed" in one:
            lines.append(f"\n**Failed: it {one['failed']}.**")
        else:
            lines.append(f"({one['seconds']} s){versions(one)}\n\n{TABLE}")
            lines += [row(each) for each in one["rows"]]
            lines += ["", *(f"- {note}" for note in one["notes"])] if one["notes"] else []
    return "\n".join(lines) + "\n"


def versions(one: Json) -> str:
    named = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    return f"; {named}" if named else ""


def row(of: Json) -> str:
    """A line of the table."""
    if of["missing"]:
        return f"| {of['what']} | {of['peer']} | | | not measured: {of['missing']} | | |"
    ours, theirs = statistics.median(of["ours"]), statistics.median(of["theirs"])
    spread = f"{min(of['ratios']):.2f} to {max(of['ratios']):.2f} ({len(of['ratios'])})"
    aims = [("at least", of["at_least"]), ("at most", of["at_most"])]
    aim = ", ".join(f"{word} {value:g}" for word, value in aims if value is not None)
    met = {None: "", True: ", met", False: ", **missed**"}[of["met"]]
    cells = [of["what"], of["peer"], *(f"{told(one)} {of['unit']}" for one in (ours, theirs))]
    return f"| {' | '.join(cells)} | **{of['ratio']:.2f}** | {spread} | {aim}{met} |"


HEAD = """# Measured against the neighbours
<!-- Written by `make bench` (benchmarks/bench.py); change it there. -->

Both sides of every line are measured in one run, in turns, at least five times, on one machine.
Every ratio is ours by the peer's: the median of the pairs, and their spread. Aims were set before
anything was measured. What the platform would need on 1,000 GPUs is in [scale.md](scale.md).

Machine: {machine}. Commit: {commit}. All of it took {minutes:.0f} minutes."""

TABLE = "| measured | peer | ours | peer's | ratio | spread (pairs) | aim |\n" + "|---" * 7 + "|"


if __name__ == "__main__":
    main()
