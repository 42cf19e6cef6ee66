"""API keys: who may do what nobody may do without one. Today that is a forced promotion.

A secret is `st_` and 256 random bits; the database has its hash only, so it is shown once.
Everything here runs inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from typing import Literal, get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from selftaught.database.tables import ApiKey
from selftaught.ids import new_id

Scope = Literal["promote"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "st_"
_SHOWN = len(PREFIX) + 6  # characters of a secret that are kept readable


class KeyRefused(Exception):
    """The message is fit for whoever sent the request or the command."""


class InvalidKey(KeyRefused):
    """There is no such key, or it was revoked."""


class MissingScope(KeyRefused):
    """The key is good, but not for this."""


class NameTaken(KeyRefused):
    """A key has this name, maybe a revoked one: records name keys, so a name stays one key's."""


def create(session: Session, name: str, scopes: Collection[Scope]) -> tuple[ApiKey, str]:
    """A new key and its secret, which nothing keeps. Raises NameTaken."""
    if session.scalar(select(ApiKey.id).where(ApiKey.name == name)) is not None:
        raise NameTaken(f"there is a key named {name!r} already")
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id("key"),
        name=name,
        prefix=secret[:_SHOWN],
        sha256=_sha256(secret),
        scopes=sorted(set(scopes)),
    )
    session.add(key)
    session.flush()
    return key, secret


def authenticate(session: Session, secret: str) -> ApiKey:
    """The key with this secret; notes that it was used. Raises InvalidKey."""
    key = session.scalar(
        select(ApiKey).where(ApiKey.sha256 == _sha256(secret), ApiKey.revoked_at.is_(None))
    )
    if key is None:
        raise InvalidKey("there is no such key, or it was revoked")
    key.last_used_at = func.clock_timestamp()
    session.flush()
    return key


def need_scope(key: ApiKey, scope: Scope) -> None:
    """Raises MissingScope."""
    if scope not in key.scopes:
        raise MissingScope(f"key {key.name!r} lacks the scope {scope!r}")


def revoke(session: Session, name: str) -> ApiKey:
    """Make a key useless; again changes nothing. Raises InvalidKey if there is none."""
    key = session.scalar(select(ApiKey).where(ApiKey.name == name).with_for_update())
    if key is None:
        raise InvalidKey(f"there is no key named {name!r}")
    if key.revoked_at is None:
        key.revoked_at = func.clock_timestamp()
        session.flush()
        session.refresh(key)
    return key


def listed(session: Session) -> list[ApiKey]:
    """Every key, oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
