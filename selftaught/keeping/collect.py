"""The garbage collector: what is past its age, and files that no row names, here and in the store.

When is a file without a row garbage? The file of a chunk, exactly: its path carries the token of
its holder, whose row is written in the transaction that takes the token from the chunk. So once the
token is gone and there is no row, there will be none (tokens are read before rows). Of other files,
uploads and weights, only their age says it: they get their row within minutes, and are garbage
after SELFTAUGHT_GC_SAFE_HOURS. So is what a killed process left half written.

One collection at a time, and none during a backup (:mod:`selftaught.keeping.locks`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from sqlalchemy import Connection, text

from selftaught.database import transaction
from selftaught.keeping import erase, retention
from selftaught.keeping.locks import COLLECTING, REMOVING, session_lock
from selftaught.keeping.places import Entry, places
from selftaught.settings import get_settings

log = logging.getLogger(__name__)

AT_ONCE = 500
"""Files asked about in one query."""

_OF_CHUNK = re.compile(r"(?:jobs|reviews)/.+/(?P<chunk>[^/]+)\.(?P<token>[0-9a-f]{16})\.jsonl")
_RUN = re.compile(r"\.(?P<chunk>.+)\.(?P<token>[0-9a-f]{16})")
_VERSION = re.compile(r"ver_[^/.]+")
_UPLOAD = re.compile(r"(?:datasets|batches)/[^/]+\.jsonl")

HELD = text("SELECT id, lock_token FROM chunks WHERE id = ANY(:ids) AND state = 'running'")
OPEN = text(
    "SELECT chunks.id FROM chunks JOIN jobs ON jobs.id = chunks.job_id WHERE chunks.id = ANY(:ids)"
    " AND chunks.state <> ALL(:ended) AND jobs.state <> ALL(:ended) AND jobs.state <> 'cancelling'"
)
ARTIFACTS = text("SELECT path FROM artifacts WHERE path = ANY(:names)")
VERSIONS = text("SELECT path FROM model_versions WHERE path = ANY(:names)")
FORGOTTEN = text(
    "DELETE FROM datasets WHERE deleted_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM jobs"
    " WHERE jobs.dataset_id = datasets.id OR jobs.labelled_dataset_id = datasets.id)"
)


@dataclass
class Report:
    """What was removed, or would be: what -> (number, bytes)."""

    removed: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, what: str, number: int, size: int) -> None:
        before = self.removed.get(what, (0, 0))
        self.removed[what] = before[0] + number, before[1] + size

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.removed.values())


def collect(dry_run: bool = False, safe_seconds: float | None = None) -> Report:
    """Remove what is past its age, then files without rows. Raises Held, OperationalError.

    `safe_seconds`: in place of SELFTAUGHT_GC_SAFE_HOURS; less than minutes is for a platform at
    rest only.
    """
    settings = get_settings()
    safe = settings.gc_safe_hours * 3600 if safe_seconds is None else safe_seconds
    report = Report()
    with (
        session_lock(COLLECTING),
        session_lock(REMOVING, shared=True) as connection,
    ):
        for expired in retention.expire(dry_run):
            report.add(expired.what, expired.rows, expired.bytes)
        if not dry_run:
            with transaction() as session:
                session.execute(FORGOTTEN)
        for place in places():
            for entry in _garbage(connection, place.entries(), safe):
                if not dry_run:
                    place.remove(entry)
                report.add("files without a row", 1, entry.bytes)
    return report


def _garbage(connection: Connection, entries: Iterable[Entry], safe: float) -> Iterator[Entry]:
    """Those of the entries that nothing will ever need.

    Asked over the connection that holds the lock: a lock that is lost ends the collection.
    """
    waiting = iter(entries)
    while group := list(islice(waiting, AT_ONCE)):
        # Who holds what, before what has a row: see above.
        chunks = [match["chunk"] for entry in group if (match := _chunk_of(entry))]
        held = {tuple(row) for row in connection.execute(HELD, {"ids": chunks})}
        going_on = set(connection.scalars(OPEN, {"ids": chunks, "ended": erase.ENDED}))
        names: dict[str, list[str]] = {"artifacts": [], "versions": []}
        for entry in group:
            names[entry.top].append(entry.name)
        rows = {
            "artifacts": set(connection.scalars(ARTIFACTS, {"names": names["artifacts"]})),
            "versions": set(connection.scalars(VERSIONS, {"names": names["versions"]})),
        }
        for entry in group:
            if entry.name in rows[entry.top] and not entry.partial:
                continue
            match = _chunk_of(entry)
            if match is not None and (match["chunk"], match["token"]) in held:
                continue
            if match is not None and entry.top == "versions" and match["chunk"] in going_on:
                continue
            if entry.age >= _least_age(entry, match, safe):
                yield entry


def _least_age(entry: Entry, match: re.Match[str] | None, safe: float) -> float:
    """From which age (seconds) an entry that nothing needs now is garbage."""
    if entry.top == "artifacts" and match is not None and not entry.partial:
        return 0.0  # its holder is gone
    if entry.top == "versions" and match is not None:  # a training that somebody may go on with
        days = get_settings().retain_checkpoint_days
        return max(safe, days * 86400) if days else float("inf")
    ours = _UPLOAD if entry.top == "artifacts" else _VERSION
    return safe if match is not None or ours.fullmatch(entry.name) else float("inf")


def _chunk_of(entry: Entry) -> re.Match[str] | None:
    """Chunk and token of a chunk's file, or of the folder of a training that did not end."""
    return (_OF_CHUNK if entry.top == "artifacts" else _RUN).fullmatch(entry.name)
