"""What a run of chaos says: a line for each fault, a table at the end, everything as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from chaos.inject import Done
from chaos.plan import KINDS

if TYPE_CHECKING:
    from chaos.__main__ import Run

SHOWN = 20


def line(done: Done) -> str:
    """Time, kind, target and what it met."""
    fault = done.fault
    return f"{done.at:8.1f} s  #{fault.number:<4d}{fault.kind:<23s}{fault.target:<17s}{done.note}"


def tell(
    quiet: Run, faults: Run, differences: list[str], options: argparse.Namespace, path: Path
) -> bool:
    """Print the end of the run and write `path`; whether all is well."""
    done = [one for one in faults.faults if one.carried_out]
    by_kind = Counter(one.fault.kind for one in done)
    by_target = Counter(one.fault.target for one in done)
    states = Counter(
        f"{job['job'][0]['kind']} {job['job'][0]['state']}" for job in faults.jobs.values()
    )
    broken = quiet.found.broken + faults.found.broken
    untyped = quiet.work.calls.untyped + faults.work.calls.untyped
    wrong = quiet.work.wrong + faults.work.wrong
    stuck = [name for name, run in (("quiet", quiet), ("faults", faults)) if run.stuck]
    lost = [one for one in broken if "lost" in one or "without its artifact" in one]
    twice = [one for one in broken if "applied" in one]
    calls = faults.work.calls

    rows: list[tuple[str, Any]] = [
        ("faults injected", f"{len(done)} in {faults.seconds:.0f} s, seed {options.seed}; "
                            f"ended by {faults.ended_by or 'a failure'}"),
        *((f"  {kind}", f"{by_kind[kind]:4d}  {how}") for kind, how in KINDS.items()),
        ("  by target", ", ".join(f"{name} {n}" for name, n in sorted(by_target.items()))),
        ("  leases lost by frozen workers", len(faults.dead_tokens)),
        ("rounds of work", f"{faults.work.rounds} (a quiet one takes {quiet.seconds:.0f} s)"),
        ("jobs", ", ".join(f"{name} {n}" for name, n in sorted(states.items()))),
        ("judge answers", f"{faults.work.judged}, of them wrong: {len(wrong)}"),
        ("uploads", len(faults.work.uploaded)),
        ("calls made / to be made again", f"{sum(calls.made.values())} / "
                                          f"{sum(calls.failed.values())}"),
        *((f"  {how}", n) for how, n in calls.failed.most_common()),
        ("files checked", faults.found.files),
        *((f"  left over, and collected: {sort}", n) for sort, n in faults.found.litter.items()),
        ("untyped failures", len(untyped)),
        ("rounds that ended differently", len({one.partition("/")[0] for one in differences})),
        ("results applied twice or late", len(twice)),
        ("other broken rules", len(broken) - len(lost) - len(twice)),
        ("results lost", len(lost)),
    ]  # fmt: skip
    write = sys.stdout.write
    write("\n")
    for name, value in rows:
        write(f"{name:<63s} {value}\n")
    for title, found in (
        ("broken", broken), ("differences", differences), ("untyped", untyped), ("wrong", wrong),
        ("did not end in time", stuck),
    ):  # fmt: skip
        for one in found[:SHOWN]:
            write(f"{title}: {one}\n")
        if len(found) > SHOWN:
            write(f"{title}: and {len(found) - SHOWN} more\n")
    ok = not (broken or differences or untyped or wrong or stuck)
    write(f"\n{'nothing was lost' if ok else 'FAILED'}; all of it: {path}\n")
    report = {
        "ok": ok,
        "seed": options.seed,
        "machine": machine.name(),
        "table": {name.strip(): value for name, value in rows},
        "broken": broken,
        "differences": differences,
        "untyped": untyped,
        "wrong": wrong,
        "stuck": stuck,
        "dead_tokens": faults.dead_tokens,
        "faults": [one.as_json() for one in faults.faults],
        "jobs": faults.jobs,
        "quiet_jobs": quiet.jobs,
    }
    path.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return ok
