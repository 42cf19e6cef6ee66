"""API keys: who calls, for which project, and what that caller may do.

A secret is `st_` and 256 random bits; the database has its hash only, so it is shown once. A hash
without salt is enough for a secret that cannot be guessed.
Everything here runs inside the caller's transaction; all but :func:`authenticate` inside a project.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import get_args

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from selftaught import tenancy
from selftaught.contracts import Scope
from selftaught.database.tables import ApiKey
from selftaught.ids import new_id

SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "st_"
SEEN = dt.timedelta(minutes=1)
"""How exact `last_used_at` is: a key in use does not write a row at each call."""
_SHOWN = len(PREFIX) + 6  # characters of a secret that are kept readable


@dataclass(frozen=True)
class Caller:
    """Who called. `key_id`: None in an open gateway, where no key was sent."""

    project: str
    scopes: frozenset[str]
    key_id: str | None = None
    key_name: str | None = None

    @property
    def told(self) -> str:
        """For messages."""
        return "a caller without a key" if self.key_id is None else f"key {self.key_name!r}"


ANYBODY = Caller(tenancy.DEFAULT, frozenset(SCOPES))
"""Whoever reaches an open gateway."""


class KeyRefused(Exception):
    """The message is fit for whoever sent the request or the command."""


class InvalidKey(KeyRefused):
    """There is no such key, or it is good no longer."""


class NameTaken(KeyRefused):
    """A key has this name, maybe a revoked one: records name keys, so a name stays one key's."""


def create(
    session: Session,
    name: str,
    scopes: Collection[Scope],
    lifetime: dt.timedelta | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which nothing keeps. Raises NameTaken."""
    if session.scalar(select(ApiKey.id).where(ApiKey.name == name)) is not None:
        raise NameTaken(f"there is a key named {name!r} already")
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id("key"),
        name=name,
        prefix=secret[:_SHOWN],
        sha256=sha256(secret),
        scopes=sorted(set(scopes)),
        expires_at=None if lifetime is None else func.clock_timestamp() + lifetime,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def authenticate(session: Session, secret: str) -> Caller:
    """Whose secret this is; notes that it was used. Raises InvalidKey."""
    hashed, now = sha256(secret), func.clock_timestamp()
    key = session.scalar(
        select(ApiKey).where(
            or_(
                ApiKey.sha256 == hashed,
                (ApiKey.former_sha256 == hashed) & (ApiKey.former_until > now),
            ),
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now),
        )
    )
    if key is None:
        raise InvalidKey("there is no such key, or it has expired or was revoked")
    seen = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - SEEN)
    if session.scalar(select(ApiKey.id).where(ApiKey.id == key.id, seen)) is not None:
        key.last_used_at = now
    return Caller(key.project_id, frozenset(key.scopes), key.id, key.name)


def rotate(session: Session, key_id: str, grace: dt.timedelta) -> tuple[ApiKey, str]:
    """A new secret for a key; the present one is good for `grace` more. Raises InvalidKey."""
    key = _locked(session, ApiKey.id == key_id)
    if key.revoked_at is not None:
        raise InvalidKey(f"key {key.name!r} was revoked")
    secret = PREFIX + secrets.token_urlsafe(32)
    key.former_sha256, key.former_until = key.sha256, func.clock_timestamp() + grace
    key.sha256, key.prefix = sha256(secret), secret[:_SHOWN]
    session.flush()
    session.refresh(key)
    return key, secret


def revoke(session: Session, name_or_id: str) -> ApiKey:
    """Make a key useless; again changes nothing. Raises InvalidKey if there is none."""
    key = _locked(session, or_(ApiKey.id == name_or_id, ApiKey.name == name_or_id))
    if key.revoked_at is None:
        key.revoked_at = func.clock_timestamp()
        session.flush()
        session.refresh(key)
    return key


def listed(session: Session, after: str | None = None, limit: int | None = None) -> list[ApiKey]:
    """Keys, oldest first."""
    query = select(ApiKey).order_by(ApiKey.id).limit(limit)
    return list(session.scalars(query if after is None else query.where(ApiKey.id > after)))


def sha256(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _locked(session: Session, which: ColumnElement[bool]) -> ApiKey:
    key = session.scalar(select(ApiKey).where(which).order_by(ApiKey.id).with_for_update())
    if key is None:
        raise InvalidKey("there is no such key")
    return key
