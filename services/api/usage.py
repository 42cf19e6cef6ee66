"""What the caller's project has used."""

from __future__ import annotations

import datetime as dt
from typing import cast

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from selftaught import usage
from selftaught.contracts import Spent, UsageOut
from selftaught.database import transaction
from selftaught.http import problem_docs
from services.api.access import Caller
from services.api.rates import Rates

router = APIRouter(prefix="/v1/usage", tags=["access"])


@router.get("", responses=problem_docs())
async def get_usage(request: Request, caller: Caller) -> UsageOut:
    """What this project has used, how much it may use, and when that begins anew."""
    found, stored = await run_in_threadpool(_used, caller.project)
    limits, requests = found.limits, None
    if limits.requests_per_minute is not None:
        counted = await cast(Rates, request.app.state.rates).count(caller.project, 0)
        requests = Spent(
            used=counted.requests,
            limit=limits.requests_per_minute,
            resets_at=found.now + dt.timedelta(seconds=counted.seconds),
        )
    days = found.tomorrow
    return UsageOut(
        project=caller.project,
        requests=requests,
        tokens=Spent(used=found.tokens, limit=limits.tokens_per_day, resets_at=days),
        gpu_seconds=Spent(used=found.gpu_seconds, limit=limits.gpu_seconds_per_day, resets_at=days),
        stored_bytes=Spent(used=stored, limit=limits.stored_bytes, resets_at=None),
    )


def _used(project: str) -> tuple[usage.Standing, int]:
    with transaction() as session:
        return usage.standing(session, project), usage.stored(session, project)
