"""What tables and reports say of a job's iterations."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def row_of(iteration: Json) -> Json | None:
    """What tables and reports say of one iteration; None while it is not scored."""
    metrics = iteration["metrics"]
    if iteration["state"] != "succeeded" or "heldout" not in metrics:
        return None
    scored = metrics.get("labelled") or metrics["heldout"]
    counts = iteration["counts"]
    return {
        "iteration": iteration["number"],
        "model_version": iteration["model_version"],
        "pairs": counts.get("pairs", counts.get("judged_pairs", 0)),  # fixed pairs: only judged
        "judgments_sampled": counts.get("judgments_sampled", 0),
        "judgments_kept": counts.get("judgments_kept", 0),
        "training_examples": counts.get("training_examples", 0),
        "strict_accuracy": scored["strict_accuracy"],
        "ci95": scored["ci95"],
        "position_bias": scored["position_bias"],
        "parse_failures": scored["parse_failures"],
        "heldout_strict_accuracy": metrics["heldout"]["strict_accuracy"],
        "promoted": metrics["promoted"],
        "seconds": round(iteration["seconds"] or 0.0, 1),
    }
