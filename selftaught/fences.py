"""The key of this deployment's fences: every replica and every batch has the same."""

from __future__ import annotations

import secrets
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from selftaught.database import transaction
from selftaught.database.tables import Secret

_NAME = "fence_key"


@lru_cache(maxsize=1)
def fence_key() -> bytes:
    """32 random bytes, made by whoever asks first and kept in Postgres; it never changes."""
    made = {"name": _NAME, "value": secrets.token_hex(32)}
    with transaction() as session:
        session.execute(insert(Secret).values(made).on_conflict_do_nothing())
        return bytes.fromhex(session.scalars(select(Secret.value).filter_by(name=_NAME)).one())
