"""Whether what a service needs is there: Postgres, its schema, Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import redis
from alembic.script import ScriptDirectory
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import migrations
from selftaught.contracts import example
from selftaught.database import transaction
from selftaught.settings import get_settings

logger = logging.getLogger(__name__)
Check = Callable[[], str]


class Readiness(BaseModel):
    """`checks`: "ok", or what is wrong, for each thing that the service needs."""

    model_config = example(ready=True, checks={"postgres": "ok", "schema": "ok"})

    ready: bool = Field(description="All of them are ok.")
    checks: dict[str, str] = Field(description='By name: "ok", or what is wrong.')


class Alive(BaseModel):
    """The answer of a process that lives."""

    model_config = example(status="ok")

    status: Literal["ok"] = Field("ok", description="Always this.")


READY_DOCS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Everything is there."},
    503: {"model": Readiness, "description": "Something is missing; `checks` says what."},
}
"""OpenAPI `responses` of a route that answers with a :class:`Readiness`."""


def readiness(checks: Mapping[str, Check]) -> Readiness:
    """The outcome of every check; a server that cannot be reached is an outcome too."""
    outcomes = {name: _outcome(name, check) for name, check in checks.items()}
    return Readiness(ready=all(found == "ok" for found in outcomes.values()), checks=outcomes)


def _outcome(name: str, check: Check) -> str:
    try:
        return check()
    except (SQLAlchemyError, redis.RedisError) as error:
        logger.warning("not ready: %s: %s", name, error)
        return f"unreachable ({type(error).__name__})"


def postgres() -> str:
    """It answers."""
    with transaction() as session:
        session.execute(text("SELECT 1"))
    return "ok"


def schema() -> str:
    """It is the one that this code's migrations make."""
    with transaction() as session:
        if session.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return f"not migrated; needs {_head()}"
        current = session.scalar(text("SELECT version_num FROM alembic_version"))
    return "ok" if current == _head() else f"at {current}; needs {_head()}"


def redis_answers() -> str:
    """It answers."""
    url = get_settings().redis_url
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        client.ping()
    return "ok"


@lru_cache(maxsize=1)
def _head() -> str | None:
    folder = Path(str(migrations.__file__)).parent
    return ScriptDirectory(str(folder)).get_current_head()
