"""Whether the process lives, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter, Response

from selftaught.readiness import (
    READY_DOCS,
    Alive,
    Readiness,
    postgres,
    readiness,
    redis_answers,
    schema,
)

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Alive:
    """The process answers (also while every thread is busy)."""
    return Alive()


@router.get("/readyz", responses=READY_DOCS)
def readyz(response: Response) -> Readiness:
    """Postgres and Redis answer, and the schema is the one this code knows."""
    found = readiness({"postgres": postgres, "schema": schema, "redis": redis_answers})
    response.status_code = 200 if found.ready else 503
    return found
