"""What must hold in a home once everything has ended, whatever happened to it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, text

from selftaught.artifacts import hash_folder

RULES = {
    "a job that has not ended": "SELECT id, state FROM jobs "
    "WHERE state NOT IN ('succeeded','failed','cancelled')",
    "an iteration that has not ended": "SELECT id, state FROM iterations "
    "WHERE state NOT IN ('succeeded','failed','cancelled')",
    "a stage that has not ended": "SELECT id, state FROM stages "
    "WHERE state NOT IN ('succeeded','failed','cancelled')",
    "a chunk that has not ended": "SELECT id, state FROM chunks "
    "WHERE state NOT IN ('succeeded','failed','cancelled')",
    "a lease that is left": "SELECT id, lock_token FROM chunks WHERE lock_token IS NOT NULL",
    "a device that is left held": "SELECT node, name, holder FROM devices "
    "WHERE holder IS NOT NULL AND expires_at > clock_timestamp()",
    "a message of an ended chunk's that waits": "SELECT id, chunk_id FROM outbox",
    "a job that failed without a typed reason": "SELECT id, error FROM jobs WHERE state = 'failed' "
    "AND (error IS NULL OR error->>'code' IS NULL OR error->>'title' IS NULL "
    "OR error->>'fault' IS NULL OR error->>'code' = 'internal_error')",
    "a result lost: a stage that succeeded without one of its chunks": "SELECT s.id FROM stages s "
    "WHERE s.state = 'succeeded' AND (s.chunks <> s.chunks_done OR s.chunks <> (SELECT count(*) "
    "FROM chunks c WHERE c.stage_id = s.id AND c.state = 'succeeded'))",
    "a result applied twice: a stage that counted more than its chunks": "SELECT s.id FROM stages "
    "s WHERE s.chunks_done <> (SELECT count(*) FROM chunks c WHERE c.stage_id = s.id "
    "AND c.state = 'succeeded')",
    "a result applied twice: two artifacts of one kind by one chunk": "SELECT kind, "
    "regexp_replace(path, '\\.[0-9a-f]{16}\\.jsonl$', '') AS made FROM artifacts "
    "WHERE path LIKE 'jobs/%' OR path LIKE 'reviews/%' GROUP BY 1, 2 HAVING count(*) > 1",
    "a result applied twice: two versions of one iteration": "SELECT job_id, iteration_number "
    "FROM model_versions WHERE parent_id IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1",
    "a result applied twice: a step told of twice": "SELECT job_id, type, data->>'stage', "
    "data->>'iteration' FROM events WHERE type IN ('stage.succeeded','iteration.succeeded',"
    "'job.succeeded','job.cancelled') "
    "GROUP BY 1, 2, 3, 4 HAVING count(*) > 1",
    "a gap in a job's events": "SELECT j.id, j.event_seq FROM jobs j WHERE j.event_seq <> "
    "(SELECT count(*) FROM events e WHERE e.job_id = j.id) OR j.event_seq <> "
    "(SELECT max(seq) FROM events e WHERE e.job_id = j.id)",
    "a gap in a model's versions": "SELECT model FROM model_versions GROUP BY 1 "
    "HAVING max(number) <> count(*) - 1",
    "an alias that is not its newest move": "SELECT a.model, a.alias FROM aliases a WHERE "
    "NOT EXISTS (SELECT 1 FROM alias_history h WHERE h.model = a.model AND h.alias = a.alias AND "
    "h.revision = a.revision AND h.version_id = a.version_id) "
    "OR a.revision <> (SELECT count(*) FROM alias_history h WHERE h.model = a.model "
    "AND h.alias = a.alias)",
    "an artifact that nothing names": "SELECT a.path FROM artifacts a WHERE NOT EXISTS (SELECT 1 "
    "FROM chunks c WHERE c.state = 'succeeded' AND (c.artifact_id = a.id OR "
    "strpos(a.path, '/' || c.id || '.') > 0)) AND NOT EXISTS (SELECT 1 FROM datasets d WHERE "
    "d.artifact_id = a.id) AND NOT EXISTS (SELECT 1 FROM jobs j WHERE "
    "a.path = 'batches/' || j.id || '.jsonl')",
}
"""What is wrong -> the query that finds it; every one must find nothing."""


@dataclass
class Found:
    """`broken`: what must not be; `litter`: files that crashes left and no row names, by sort."""

    broken: list[str] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)
    files: int = 0

    def add(self, what: str, which: object) -> None:
        self.broken.append(f"{what}: {which}")


def check(
    connection: Connection,
    home: Path,
    known: Mapping[str, str],
    uploaded: Mapping[str, int],
    dead_tokens: Collection[str],
) -> Found:
    """Everything there is to say about a quiet home."""
    found = Found()
    for what, query in RULES.items():
        for row in connection.execute(text(query)):
            found.add(what, tuple(row))
    _promises(connection, known, uploaded, found)
    _files(connection, home / "artifacts", found)
    _versions(connection, home / "versions", found)
    for token in dead_tokens:
        published = text("SELECT path FROM artifacts WHERE path LIKE '%.' || :token || '.%'")
        for (path,) in connection.execute(published, {"token": token}):
            found.add("a result applied by a worker that had lost its lease", path)
    return found


def _promises(
    connection: Connection, known: Mapping[str, str], uploaded: Mapping[str, int], found: Found
) -> None:
    """What the gateway said it has made is there."""
    jobs = set(connection.scalars(text("SELECT id FROM jobs")))
    query = "SELECT d.id, a.rows FROM datasets d JOIN artifacts a ON a.id = d.artifact_id"
    datasets = {row[0]: row[1] for row in connection.execute(text(query))}
    for name, one in known.items():
        if one not in jobs and one not in datasets:
            found.add("a result lost: acknowledged and gone", f"{name} {one}")
    for dataset, rows in uploaded.items():
        if datasets.get(dataset) != rows:
            found.add("a result lost: rows of an upload", f"{dataset} {datasets.get(dataset)}")


def _files(connection: Connection, folder: Path, found: Found) -> None:
    """Every artifact's row has its file, as it was hashed; every file has its row."""
    rows = {
        path: (sha256, size)
        for path, sha256, size in connection.execute(
            text("SELECT path, sha256, bytes FROM artifacts")
        )
    }
    for path, (sha256, size) in rows.items():
        file = folder / path
        if not file.is_file():
            found.add("a row without its artifact", path)
            continue
        content = file.read_bytes()
        if len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
            found.add("an artifact that is not what its row says", path)
    ended = set(connection.scalars(text("SELECT id FROM chunks")))
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        found.files += 1
        path = file.relative_to(folder).as_posix()
        of = path.removesuffix(".manifest.json") + ".jsonl" if "manifest" in path else path
        if of not in rows:
            found.litter[_sort(path, ended)] += 1


def _sort(path: str, chunks: Collection[str]) -> str:
    name = path.rpartition("/")[2]
    if name.startswith("."):
        return "unfinished files of killed processes"
    if ".".join(name.split(".")[:2]) in chunks:
        return "files of leases that were lost"
    return "files of requests that were cut off"


def _versions(connection: Connection, folder: Path, found: Found) -> None:
    """Every trained version has its folder, as it was hashed; every folder has its version."""
    query = "SELECT path, sha256 FROM model_versions WHERE parent_id IS NOT NULL"
    rows: dict[str, str] = {row[0]: row[1] for row in connection.execute(text(query))}
    for path, sha256 in rows.items():
        if not (folder / path).is_dir():
            found.add("a row without its artifact", f"version {path}")
        elif hash_folder(folder / path) != sha256:
            found.add("an artifact that is not what its row says", f"version {path}")
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name not in rows:
            unfinished = entry.name.startswith(".")
            found.litter["unfinished trainings" if unfinished else "weights of leases lost"] += 1
