"""Bodies larger than memory: streamed to a file without a name, and their rows kept all or none."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from typing import Any, BinaryIO

from fastapi import Request
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from selftaught import artifacts
from selftaught.database import transaction
from selftaught.database.tables import Artifact
from selftaught.http import Refused, too_large
from selftaught.settings import get_settings
from services.api import records
from services.api.limits import need_room

MAX_ERRORS = 100
MAX_BAD = 100_000
"""Errors that are counted: a megabyte of gzip may unpack to a thousand million of them."""
_BATCH = 1 << 20


@contextmanager
def spooled() -> Iterator[BinaryIO]:
    """A file for a body, gone when the block ends; a full disk inside the block is 507.

    Without a name on disk: a crash leaves nothing behind.
    """
    folder = get_settings().artifacts_dir
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as spool:
            yield spool
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refused(507, "storage_full", "there is no room for this file") from error


async def receive(request: Request, spool: BinaryIO) -> None:
    """Write the body to `spool`; 413 if it is larger than an upload may be."""
    async for piece in pieces(request, get_settings().max_upload_bytes):
        await run_in_threadpool(spool.write, piece)


async def pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces of about a megabyte; 413 as soon as it is declared or seen too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    need_room(request, int(declared) if declared.isdigit() else 0)
    buffer, received = bytearray(), 0
    async for piece in request.stream():
        received += len(piece)
        if received > limit:
            raise too_large(limit)
        need_room(request, received)
        buffer += piece
        if len(buffer) >= _BATCH:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def unpacked(spool: BinaryIO, code: str) -> BinaryIO:
    """The body's content, gzipped or not; refuses what is no gzip (as `code`), or too much of it.

    To be closed by the caller.
    """
    settings = get_settings()
    try:
        return records.unpacked(spool, settings.max_upload_bytes, settings.artifacts_dir)
    except records.TooLarge as error:
        raise _unpacked_too_large() from error
    except records.NotGzip as error:
        message = f"not a whole gzip file: {error}"
        listed = [{"line": 1, "field": None, "message": message}]
        raise Refused(422, code, message, param="file", errors=listed) from error


def _unpacked_too_large() -> Refused:
    detail = f"unpacked, the file is larger than {get_settings().max_upload_bytes} bytes"
    return Refused(413, "unpacked_too_large", detail, param="file")


def write_rows(
    items: records.Items,
    write_all: Callable[[list[dict[str, Any]]], None],
    code: str,
) -> None:
    """Write the rows, or refuse the file (422, `code`) with all that is wrong with its lines.

    413 if they are more than an upload may have. Closes `items`: what a refused file still has open
    belongs to this thread.
    """
    errors: list[records.LineError] = []
    rows = total = 0
    limit = get_settings().max_upload_rows
    try:
        with closing(items):
            for item in items:
                if isinstance(item, records.LineError):
                    total += 1
                    if len(errors) < MAX_ERRORS:
                        errors.append(item)
                    if total >= MAX_BAD:
                        break
                    continue
                found = item.data if isinstance(item, records.Rows) else [item.data]
                rows += len(found)
                if rows > limit:
                    detail = f"the file has more than {limit} rows"
                    raise Refused(413, "too_many_rows", detail, param="file")
                if not total:
                    write_all(found)
    except records.TooLarge as error:
        raise _unpacked_too_large() from error
    if not total and not rows:
        raise Refused(422, code, "the file has no rows", param="file")
    if total:
        first = errors[0]
        many = (
            f"{total} error{'s' if total > 1 else ''}"
            if total < MAX_BAD
            else f"{MAX_BAD} errors or more"
        )
        detail = f"{many}, the first in line {first.line}; nothing was kept"
        if total > MAX_ERRORS:
            detail += f"; the first {MAX_ERRORS} are listed"
        listed = [asdict(error) for error in errors]
        raise Refused(422, code, detail, param=first.field, errors=listed)


@contextmanager
def recording(published: artifacts.Published) -> Iterator[Session]:
    """The transaction that writes the rows of a published file; without rows the file is removed.

    A connection that breaks during the commit leaves open whether there are rows: then the database
    is asked, and if nobody answers the file stays. A file without a row does no harm.
    """
    try:
        with transaction() as session:
            yield session
    except BaseException:
        with suppress(SQLAlchemyError):
            with transaction() as session:
                query = select(Artifact.id).where(Artifact.path == published.path)
                recorded = session.scalar(query) is not None
            if not recorded:
                artifacts.discard(published)
        raise
