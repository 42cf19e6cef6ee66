"""Who calls: for pages and programs that show only what their key may do."""

from __future__ import annotations

from fastapi import APIRouter

import selftaught
from selftaught.contracts import CallerKey, CallerOut
from selftaught.http import problem_docs
from selftaught.keys import SCOPES
from services.api import access

router = APIRouter(prefix="/v1/caller", tags=["access"])


@router.get("", responses=problem_docs())
def get_caller(caller: access.Caller) -> CallerOut:
    """The caller's key, project and scopes; any good key may ask."""
    key = None
    if caller.key_id is not None and caller.key_name is not None:
        key = CallerKey(id=caller.key_id, name=caller.key_name)
    return CallerOut(
        project=caller.project,
        key=key,
        scopes=[scope for scope in SCOPES if scope in caller.scopes],
        operator=access.is_operator(caller),
        version=selftaught.__version__,
    )
