"""The gate: may this version become `latest`? A pure function of measured numbers.

Every rule that speaks gives its reason with the numbers, whether it passed or not, so that a
refusal can be read and argued with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selftaught.contracts import GateSettings


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and every rule's finding."""

    promote: bool
    reasons: list[str]


def decide(
    candidate: dict[str, dict[str, Any]],
    incumbent: dict[str, dict[str, Any]] | None,
    settings: GateSettings,
) -> Decision:
    """Compare two versions' summaries, keyed by set ('heldout', and 'labelled' where given).

    `incumbent` is None when nothing is `latest` yet: then the candidate is promoted.
    """
    if incumbent is None:
        return Decision(True, ["no version was latest"])
    findings = [
        _rule(
            "heldout strict accuracy",
            candidate["heldout"]["strict_accuracy"],
            incumbent["heldout"]["strict_accuracy"] + settings.margin,
        )
    ]
    if "labelled" in candidate and "labelled" in incumbent:
        findings.append(
            _rule(
                "labelled strict accuracy",
                candidate["labelled"]["strict_accuracy"],
                incumbent["labelled"]["strict_accuracy"] - settings.labelled_tolerance,
            )
        )
    return Decision(all(passed for passed, _ in findings), [reason for _, reason in findings])


def _rule(name: str, got: float, needed: float) -> tuple[bool, str]:
    passed = got >= needed
    return passed, f"{name} {got:.4f}, needed {needed:.4f}: {'passed' if passed else 'failed'}"
