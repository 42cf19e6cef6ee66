"""Every legal transition of a job and of what it is made of; there is no other table of them.

The database refuses what is not here, too: a trigger on each table carries the same pairs
(migrations/, "transitions"), and a test compares the two.
"""

from __future__ import annotations

from selftaught.contracts import State

_P, _R, _OK, _F, _C = (
    State.PENDING,
    State.RUNNING,
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
)
_OF_PARTS = {_R: frozenset({_OK, _F, _C}), _F: frozenset({_R})}
"""Iterations and stages; they keep `running` while their job is paused. Failed ones run again when
their job is retried."""

TRANSITIONS: dict[str, dict[State, frozenset[State]]] = {
    "jobs": {
        _P: frozenset({_R}),
        _R: frozenset({State.PAUSING, State.CANCELLING, _OK, _F}),
        State.PAUSING: frozenset({State.PAUSED, _R, State.CANCELLING, _OK, _F}),
        State.PAUSED: frozenset({_R, State.CANCELLING}),
        State.CANCELLING: frozenset({_C}),
        _F: frozenset({_R}),
    },
    "iterations": _OF_PARTS,
    "stages": _OF_PARTS,
    "chunks": {
        State.READY: frozenset({_R, _C}),
        _R: frozenset({State.READY, _OK, _F, _C}),
        _F: frozenset({State.READY}),
        _C: frozenset({State.READY}),
    },
}
"""Table -> state -> states that may follow it."""

GOING = (State.RUNNING, State.PAUSING)
"""Of a job: a result that comes now counts."""


def pairs(table: str) -> frozenset[str]:
    """The legal transitions of a table, each as `from>to`: as the trigger has them."""
    rows = TRANSITIONS[table].items()
    return frozenset(f"{before}>{after}" for before, following in rows for after in following)


def markdown() -> str:
    """The transitions as docs/work-kernel.md prints them."""
    lines = ["| of | from | to |", "|---|---|---|"]
    for table, rows in TRANSITIONS.items():
        for before, following in rows.items():
            to = ", ".join(state for state in State if state in following)
            lines.append(f"| {table} | {before} | {to} |")
    return "\n".join(lines)
