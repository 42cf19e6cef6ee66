"""Keys: what callers of this project send, and what each may do."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Path, Response

from selftaught import keys
from selftaught.contracts import KeyIn, KeyMade, KeyOut, KeyRotation, Page
from selftaught.database import transaction
from selftaught.database.tables import ApiKey
from selftaught.http import Refused, problem_docs
from services.api import problems
from services.api.deps import Cursor, Limit, StorableBody
from services.api.idempotency import Once, keep

router = APIRouter(prefix="/v1/keys", tags=["access"])

KeyId = Annotated[str, Path(description="A key's id.", examples=["key_019ac5a6b1c2d3e4f5061728"])]


@router.post("", status_code=201, responses=problem_docs(409), dependencies=[StorableBody, Once])
def create_key(body: KeyIn, response: Response) -> KeyMade:
    """Make a key of this project. Its secret is in this answer and nowhere else.

    Scopes do not imply each other: `read` is for GET, `write` makes datasets and jobs, `judge` asks
    the judge, `promote` moves aliases, `admin` makes keys. A key's name stands in all records of
    what it did and is never given to another. The same request again, with an Idempotency-Key, is
    answered with 409 `secret_shown_once`.
    """
    return make(body, response)


def make(body: KeyIn, response: Response) -> KeyMade:
    """A key of the project that this context is inside. Raises Refused (409)."""
    lifetime = None if body.expires_in_days is None else dt.timedelta(days=body.expires_in_days)
    try:
        with transaction() as session:
            key, secret = keys.create(session, body.name, body.scopes, lifetime)
            made = KeyMade(**_shown(key), secret=secret)
            location = response.headers["Location"] = f"/v1/keys/{key.id}"
            keep(session, made, location, secret=True)
            return made
    except keys.NameTaken as error:
        raise Refused(409, "key_exists", str(error), param="name") from error


@router.get("", responses=problem_docs())
def list_keys(after: Cursor = None, limit: Limit = 20) -> Page[KeyOut]:
    """Keys of this project, oldest first, revoked ones too. Secrets are not kept."""
    with transaction() as session:
        rows = keys.listed(session, after, limit + 1)
        return Page(
            data=[KeyOut(**_shown(row)) for row in rows[:limit]], has_more=len(rows) > limit
        )


@router.post(
    "/{key_id}/rotate", responses=problem_docs(404, 409), dependencies=[StorableBody, Once]
)
def rotate_key(key_id: KeyId, body: KeyRotation) -> KeyMade:
    """Give a key a new secret; the present one stays good for `grace_seconds`.

    The one before the present one, if it was still good, is so no longer.
    """
    try:
        with transaction() as session:
            _need(session.get(ApiKey, key_id), key_id)
            grace = dt.timedelta(seconds=body.grace_seconds)
            key, secret = keys.rotate(session, key_id, grace)
            made = KeyMade(**_shown(key), secret=secret)
            keep(session, made, f"/v1/keys/{key_id}", secret=True)
            return made
    except keys.InvalidKey as error:
        raise Refused(409, "key_revoked", str(error)) from error


@router.delete("/{key_id}", responses=problem_docs(404))
def revoke_key(key_id: KeyId) -> KeyOut:
    """Revoke a key, for good; within two seconds no gateway takes it any more.

    Its record stays. Revoking it again changes nothing.
    """
    with transaction() as session:
        _need(session.get(ApiKey, key_id), key_id)
        return KeyOut(**_shown(keys.revoke(session, key_id)))


def _need(row: ApiKey | None, key_id: str) -> None:
    if row is None:
        raise problems.not_found("key", key_id)


def _shown(row: ApiKey) -> dict[str, object]:
    names = ("id", "name", "prefix", "scopes", "created_at", "expires_at", "revoked_at")
    return {name: getattr(row, name) for name in (*names, "last_used_at")}
