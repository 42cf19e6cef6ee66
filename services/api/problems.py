"""The gateway's refusals, one function each, so that every route words them alike."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from selftaught.contracts import PromotionOut
from selftaught.database.tables import Job
from selftaught.http import Refused, field_errors
from selftaught.openapi import problem_response
from selftaught.recipes import what_is_wrong
from selftaught.registry import UnknownName


def not_found(what: str, name: str, param: str | None = None) -> Refused:
    """404 for an id that does not exist."""
    return Refused(404, f"{what}_not_found", f"there is no {what} {name!r}", param=param)


def need_data(job: Job) -> None:
    """410 for the files of a job that were removed by their age."""
    if job.data_removed_at is not None:
        detail = f"the files of job {job.id!r} were removed at {job.data_removed_at:%Y-%m-%d %H:%M}"
        raise Refused(410, "data_removed", detail)


def unknown_name(error: UnknownName, param: str) -> Refused:
    """422 for a name that the operator does not offer; the detail lists what there is."""
    return Refused(422, "unknown_" + error.what.replace(" ", "_"), str(error), param=param)


def invalid_recipe(error: ValidationError, overrides: dict[str, Any]) -> Refused:
    """422 naming each wrong setting by its path, under `overrides` if it was set there."""
    errors = field_errors(error.errors(include_url=False, include_context=False))
    for item, raw in zip(errors, error.errors(include_url=False), strict=True):
        place = "overrides" if raw["loc"] and _is_set(overrides, raw["loc"]) else "recipe"
        # A rule between several settings has no path of its own; its message names them.
        item["message"] = what_is_wrong(raw)
        item["field"] = f"{place}.{item['field']}" if raw["loc"] else place
    detail = f"{errors[0]['field']}: {errors[0]['message']}"
    return Refused(422, "invalid_recipe", detail, param=errors[0]["field"], errors=errors)


def _is_set(tree: Any, path: tuple[int | str, ...]) -> bool:
    for part in path:
        if not isinstance(tree, dict):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True


GATE_REFUSED: dict[int | str, dict[str, Any]] = {
    409: problem_response(
        409,
        "gate_refused",
        "tour:2 is not promoted to 'latest': margin: heldout: strict accuracy 0.7619, "
        "needed 0.8036: failed",
    )
}
"""The OpenAPI `responses` of :func:`gate_refused`."""


def gate_refused(decision: PromotionOut) -> Refused:
    """409 with the failed rules, each with its numbers."""
    failed = [finding for finding in decision.findings if not finding.passed]
    said = "; ".join(f"{finding.rule}: {finding.detail}" for finding in failed)
    detail = f"{decision.version} is not promoted to {decision.alias!r}: {said}"
    errors = [finding.model_dump() for finding in failed]
    return Refused(409, "gate_refused", detail, errors=errors)
