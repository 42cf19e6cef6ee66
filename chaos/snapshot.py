"""What a job left, in a form that two runs can be compared in: rows and files without names.

Ids, model names, times and speeds differ from run to run and are taken out; everything else must
be equal: states, counts, scores, files, weights.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

Json = dict[str, Any]
_IDS = re.compile(r"\b([a-z]+)_[0-9a-f]{24}\b")
_TOKEN = re.compile(r"(\.\d+)\.[0-9a-f]{16}\b")
_MODEL = re.compile(r"\br\d+-(\w+?)(\.again\d+)?\b")
_SPEEDS = re.compile(r"seconds|per_second|resum|peak|memory|_at$|^pid$|^path$")


def nameless(value: str) -> str:
    """A text without ids, lease tokens and the round in a model's name."""
    return _MODEL.sub(r"\1", _TOKEN.sub(r"\1", _IDS.sub(r"\1", value)))


def stripped(value: Any) -> Any:
    """JSON without names and without what a clock or a memory said."""
    if isinstance(value, dict):
        return {
            nameless(key): stripped(one) for key, one in value.items() if not _SPEEDS.search(key)
        }
    if isinstance(value, list):
        return [stripped(one) for one in value]
    return nameless(value) if isinstance(value, str) else value


def job(connection: Connection, job_id: str, artifacts: Path) -> Json:
    """Everything that follows from what the job was asked."""

    def rows(query: str) -> list[Json]:
        found = connection.execute(text(query), {"job": job_id}).mappings()
        return [stripped(dict(row)) for row in found]

    found: Json = {
        "job": rows("SELECT kind, state, error FROM jobs WHERE id = :job"),
        "iterations": rows(
            "SELECT number, state, version_id FROM iterations WHERE job_id = :job ORDER BY number"
        ),
        "stages": rows(
            "SELECT i.number, s.kind, s.position, s.state, s.chunks, s.chunks_done, s.counts, "
            "s.metrics FROM stages s JOIN iterations i ON i.id = s.iteration_id "
            "WHERE s.job_id = :job ORDER BY i.number, s.position"
        ),
        "chunks": rows(
            "SELECT i.number, c.kind, c.position, c.state, c.counts, c.metrics, c.input "
            "FROM chunks c JOIN stages s ON s.id = c.stage_id "
            "JOIN iterations i ON i.id = s.iteration_id "
            "WHERE c.job_id = :job ORDER BY i.number, s.position, c.position"
        ),
        "versions": rows(
            "SELECT v.model, v.number, v.iteration_number, v.sha256, v.lineage, p.number AS parent "
            "FROM model_versions v LEFT JOIN model_versions p ON p.id = v.parent_id "
            "WHERE v.job_id = :job ORDER BY v.number"
        ),
        "aliases": rows(
            "SELECT h.model, h.alias, h.revision, h.reason, v.number FROM alias_history h "
            "JOIN model_versions v ON v.id = h.version_id "
            "WHERE h.model = (SELECT model FROM jobs WHERE id = :job AND kind = 'loop') "
            "ORDER BY h.alias, h.revision"
        ),
        "evaluations": rows(
            'SELECT e.set, e.metrics, e."right", e.template_sha256, v.number FROM evaluations e '
            "JOIN model_versions v ON v.id = e.version_id WHERE e.job_id = :job "
            "ORDER BY e.set, v.number"
        ),
        "promotions": rows(
            "SELECT alias, promoted, forced, findings, reason FROM promotions WHERE job_id = :job "
            "ORDER BY created_at"
        ),
        "review items": rows(
            "SELECT position, stratum, weight, pair, swapped, verdict, confidence, orders_agree, "
            "against_verdict FROM review_items WHERE job_id = :job ORDER BY position"
        ),
    }
    found["artifacts"] = _artifacts(connection, job_id, artifacts)
    return found


def _artifacts(connection: Connection, job_id: str, folder: Path) -> list[Json]:
    """The job's files by kind and place, with a hash of their content without names."""
    query = text(
        "SELECT kind, path, rows FROM artifacts WHERE path LIKE 'jobs/' || :job || '/%' "
        "OR path LIKE 'reviews/' || :job || '/%' OR path = 'batches/' || :job || '.jsonl'"
    )
    found = []
    for kind, path, rows in connection.execute(query, {"job": job_id}):
        content = (folder / path).read_text() if (folder / path).exists() else "missing"
        sha256 = hashlib.sha256(nameless(content).encode()).hexdigest()
        found.append({"kind": kind, "place": _place(connection, path), "rows": rows,
                      "sha256": sha256})  # fmt: skip
    return sorted(found, key=lambda one: (one["place"], one["kind"]))


def _place(connection: Connection, path: str) -> str:
    """Iteration, kind and position of the chunk that made a file."""
    parts = path.split("/")
    if len(parts) < 5:
        return parts[0]
    position = parts[4].split(".")[1]
    return f"{parts[2]}/{parts[3]}/{int(position):04d}"


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Where two snapshots differ, in words; empty: nowhere."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted({*first, *second})
        return [
            told
            for key in keys
            for told in differences(first.get(key), second.get(key), f"{where}/{key}")
        ]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [
            told
            for at, (one, other) in enumerate(zip(first, second, strict=True))
            for told in differences(one, other, f"{where}/{at}")
        ]
    if first == second:
        return []
    if isinstance(first, list) and isinstance(second, list):
        return [f"{where}: {len(first)} and {len(second)}"]
    return [f"{where}: {str(first)[:120]} and {str(second)[:120]}"]
