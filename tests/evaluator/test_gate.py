"""The gate's rules, on numbers."""

from __future__ import annotations

import pytest

from selftaught.contracts import GateSettings
from services.evaluator.gate import decide


def scores(heldout: float, labelled: float | None = None) -> dict[str, dict[str, float]]:
    found = {"heldout": {"strict_accuracy": heldout}}
    return found if labelled is None else {**found, "labelled": {"strict_accuracy": labelled}}


def test_the_first_version_is_promoted() -> None:
    assert decide(scores(0.1), None, GateSettings()).promote


@pytest.mark.parametrize(
    ("candidate", "incumbent", "promoted"),
    [
        (scores(0.80), scores(0.75), True),
        (scores(0.76), scores(0.75), False),  # better, but by less than the margin
        (scores(0.70), scores(0.75), False),
        (scores(0.80, 0.69), scores(0.75, 0.70), True),  # within the tolerance
        (scores(0.80, 0.67), scores(0.75, 0.70), False),  # worse where people labelled
        (scores(0.80, 0.10), scores(0.75), True),  # the incumbent was not scored on it
    ],
)
def test_margin_and_tolerance(
    candidate: dict[str, dict[str, float]], incumbent: dict[str, dict[str, float]], promoted: bool
) -> None:
    settings = GateSettings(margin=0.02, labelled_tolerance=0.02)
    assert decide(candidate, incumbent, settings).promote is promoted


def test_a_refusal_names_the_rule_with_its_numbers() -> None:
    decision = decide(scores(0.70, 0.9), scores(0.75, 0.9), GateSettings())
    assert decision.reasons == [
        "heldout strict accuracy 0.7000, needed 0.7500: failed",
        "labelled strict accuracy 0.9000, needed 0.8800: passed",
    ]
