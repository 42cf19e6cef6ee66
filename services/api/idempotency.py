"""Idempotency-Key: a request that was sent again is carried out once, and answered as before.

The key is reserved first, in a transaction of its own. The answer is written in the transaction
that makes what it tells of, and only while the reservation is held (its token is this request's);
so the two are there together or not at all, whatever dies in between. A reservation that a dead
request left is taken over after a while; if the request was not dead, it fails and leaves nothing.
Only what succeeded is kept: anything else lets go of the key.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from selftaught import tenancy
from selftaught.database import transaction
from selftaught.http import Refused
from selftaught.settings import get_settings
from services.api import bodies
from services.api.access import Caller
from services.api.fingerprints import Fingerprint

logger = logging.getLogger(__name__)

TAKEN_OVER_SECONDS = 300.0
"""A request that has not ended after so long is taken for dead when it is sent again."""
_DRAINED = 1 << 16  # bytes of a form beside its file

Given = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[!-~]{1,255}$",
        description="Any text of your own, new for each thing to make: the same request, sent "
        "again with it, makes nothing more and is answered as before.",
    ),
]
_RESERVE = text(
    """
    INSERT INTO idempotency_keys AS k (project_id, key, token) VALUES (:project, :key, :token)
    ON CONFLICT (project_id, key) DO UPDATE SET token = excluded.token, status = NULL,
        fingerprint = NULL, body = NULL, location = NULL, reserved_at = clock_timestamp()
    WHERE k.reserved_at < clock_timestamp() - make_interval(secs => :age)
        OR (k.status IS NULL
            AND k.reserved_at < clock_timestamp() - make_interval(secs => :dead))
    RETURNING token
    """
)
_FOUND = text(
    "SELECT status, fingerprint, body, location FROM idempotency_keys"
    " WHERE project_id = :project AND key = :key"
)
_KEEP = text(
    "UPDATE idempotency_keys SET status = :status, fingerprint = :fingerprint, body = :body,"
    " location = :location"
    " WHERE project_id = :project AND key = :key AND token = :token AND status IS NULL"
    " RETURNING token"
)
_LET_GO = text(
    "DELETE FROM idempotency_keys"
    " WHERE project_id = :project AND key = :key AND token = :token AND status IS NULL"
)
_CONFINE = text("SELECT set_config('selftaught.project', :project, true)")


class Replayed(Exception):
    """The request was carried out before; this is what it was answered."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


@dataclass
class Reservation:
    """A key that this request holds."""

    project: str
    key: str
    token: str
    status: int
    fingerprint: Fingerprint
    kept: bool = False

    @property
    def names(self) -> dict[str, str]:
        """Which row it is."""
        return {"project": self.project, "key": self.key, "token": self.token}


_mine: ContextVar[Reservation | None] = ContextVar("idempotency", default=None)


async def _once(
    request: Request, caller: Caller, idempotency_key: Given = None
) -> AsyncIterator[None]:
    _mine.set(None)
    if idempotency_key is None:
        yield
        return
    route: APIRoute = request.scope["route"]
    mine = Reservation(
        project=caller.project,
        key=idempotency_key,
        token=secrets.token_hex(16),
        status=route.status_code or 200,
        fingerprint=request.state.fingerprint,
    )
    found = await run_in_threadpool(_reserve, mine)
    if found is not None:
        await _replay(request, mine.fingerprint, found)
    _mine.set(mine)
    try:
        if request.url.path not in request.app.state.streaming:
            await request.body()
        yield
    except BaseException:
        await _let_go(mine)
        raise
    if not mine.kept:
        logger.error("%s %s kept no answer", request.method, route.path_format)
        await _let_go(mine)


Once = Depends(_once)
"""Of routes that take an Idempotency-Key; each calls :func:`keep` where it makes something."""


def keep(
    session: Session, out: BaseModel, location: str | None = None, *, secret: bool = False
) -> None:
    """Write down a request's answer, if it came with a key, in the transaction that makes it true.

    The body of an answer with a `secret` is not kept. Raises Refused (409) if the reservation was
    taken over: then nothing of this transaction may stay.
    """
    mine = _mine.get()
    if mine is None:
        return
    confined = tenancy.current()
    foreign = confined is not None and confined != mine.project  # the operator works for another
    if foreign:
        session.execute(_CONFINE, {"project": mine.project})
    values = {
        "status": mine.status,
        "fingerprint": mine.fingerprint.hexdigest(),
        "body": None if secret else out.model_dump_json(by_alias=True),
        "location": location,
    }
    held = session.execute(_KEEP, {**mine.names, **values}).one_or_none()
    if held is None:
        raise _in_flight()
    if foreign:
        session.execute(_CONFINE, {"project": confined})
    mine.kept = True


async def on_replayed(_: Request, error: Exception) -> Response:
    """The exception handler of :class:`Replayed`."""
    assert isinstance(error, Replayed)
    return error.response


def _reserve(mine: Reservation) -> Any:
    """Take the key: None; or the row that somebody else has."""
    age = get_settings().idempotency_days * 86400
    asked = {**mine.names, "age": age, "dead": TAKEN_OVER_SECONDS}
    with transaction() as session:
        if session.execute(_RESERVE, asked).one_or_none() is not None:
            return None
        found = session.execute(_FOUND, asked).one_or_none()
    if found is None:  # let go of at this moment
        raise _in_flight()
    return found


async def _replay(request: Request, fingerprint: Fingerprint, found: Any) -> NoReturn:
    if found.status is None:
        raise _in_flight()
    limit = get_settings().max_upload_bytes + _DRAINED
    async for _ in bodies.pieces(request, limit):
        pass
    if fingerprint.hexdigest() != found.fingerprint:
        detail = "another request was sent with this key; choose a new one for each thing to make"
        raise Refused(422, "idempotency_key_reused", detail, param="Idempotency-Key")
    if found.body is None:
        detail = f"{found.location} was made by this request before; its secret is not kept here"
        raise Refused(409, "secret_shown_once", detail)
    headers = {"Idempotency-Replayed": "true"}
    if found.location is not None:
        headers["Location"] = found.location
    raise Replayed(Response(found.body, found.status, headers, media_type="application/json"))


async def _let_go(mine: Reservation) -> None:
    """Leave the key to the next try; nothing happens if the answer was kept after all."""

    def delete() -> None:
        with tenancy.inside(mine.project), transaction() as session:
            session.execute(_LET_GO, mine.names)

    try:
        await run_in_threadpool(delete)
    except SQLAlchemyError as error:
        logger.warning("an idempotency key stays reserved for a while: %s", error)


def _in_flight() -> Refused:
    detail = "a request with this key is being carried out"
    return Refused(409, "idempotency_in_flight", detail, headers={"Retry-After": "1"})
