"""The plan of faults, and how two runs' jobs are compared."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from chaos.plan import WORKERS, plan
from chaos.snapshot import differences, stripped


def test_a_seed_gives_one_plan_and_another_seed_another() -> None:
    first = list(islice(plan(7, 5.0, 6.0), 120))
    assert first == list(islice(plan(7, 5.0, 6.0), 120))
    assert first != list(islice(plan(8, 5.0, 6.0), 120))
    assert [fault.number for fault in first] == [*range(1, 121)]


def test_one_deck_meets_every_component_and_outlasts_leases() -> None:
    faults = list(islice(plan(0, 5.0, 6.0), 60))
    targets = {fault.target for fault in faults if fault.kind == "kill"}
    assert {*WORKERS, "gateway", "evaluator", "relay", "redis", "postgres"} <= targets
    assert {"training child", "supervisor"} <= targets
    long = [fault for fault in faults if fault.kind == "freeze past the lease"]
    assert {fault.target for fault in long} == set(WORKERS)
    assert all(fault.hold > 6.0 for fault in long)


JOB: dict[str, Any] = {
    "state": "succeeded",
    "path": "ver_01a21ea5d1259a6187f2ed84",
    "counts": {"pairs": 32, "seconds": 3.5},
    "reason": "gate of job_01a21ea5d1259a6187f2ed84: r0-sft:1 beats r0-sft:0",
    "chunks": [{"of": "st_01a21ea5d1259a6187f2ed84.7.00112233445566aa.jsonl"}],
}


def test_names_and_clocks_make_no_difference() -> None:
    other: dict[str, Any] = {
        "state": "succeeded",
        "path": "ver_01a21ea5d1259a6187f2ed99",
        "counts": {"pairs": 32, "seconds": 9.1},
        "reason": "gate of job_01a21ea5d1259a6187f2ed85: r12-sft.again2:1 beats r12-sft.again2:0",
        "chunks": [{"of": "st_01a21ea5d1259a6187f2ed90.7.ffeeddccbbaa9988.jsonl"}],
    }
    assert differences(stripped(JOB), stripped(other)) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"counts": {"pairs": 31, "seconds": 3.5}}, "/counts/pairs"),
        ({"state": "failed"}, "/state"),
        ({"chunks": []}, "/chunks"),
        ({"reason": "gate of job_01a21ea5d1259a6187f2ed84: r0-sft:2 beats r0-sft:0"}, "/reason"),
        ({"chunks": [{"of": "st_01a21ea5d1259a6187f2ed84.8.00112233445566aa.jsonl"}]}, "/chunks/0"),
    ],
)
def test_a_count_that_differs_is_told(change: dict[str, Any], where: str) -> None:
    (told,) = differences(stripped(JOB), stripped({**JOB, **change}))
    assert told.startswith(where)
