"""Who may call which route: every route has a rule here, and the gateway does not start without it.

A caller is a key, and with it a project; what the route then reads and writes is confined to that
project by Postgres (selftaught/tenancy.py), so what belongs to others is not there: 404. Where the
gateway is open (the embedded stack, on loopback) a caller without a key has all rights in the first
project, unless a web page of elsewhere sent it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from selftaught import keys, tenancy
from selftaught.contracts import Scope
from selftaught.database import transaction
from selftaught.http import Refused, problem_docs
from selftaught.settings import get_settings
from services.api import around, limits

Rule = Scope | Literal["any", "operator"]
"""The scope that a key needs; `any`: a good key is enough. `operator`: `admin`, in the first
project; such routes see all."""

RULES: dict[str, Rule] = {
    "GET /v1/caller": "any",
    "POST /v1/datasets": "write",
    "GET /v1/datasets": "read",
    "GET /v1/datasets/{dataset_id}": "read",
    "GET /v1/datasets/{dataset_id}/rows": "read",
    "DELETE /v1/datasets/{dataset_id}": "write",
    "POST /v1/jobs": "write",
    "GET /v1/jobs": "read",
    "GET /v1/jobs/{job_id}": "read",
    "DELETE /v1/jobs/{job_id}": "write",
    "POST /v1/jobs/{job_id}/cancel": "write",
    "POST /v1/jobs/{job_id}/pause": "write",
    "POST /v1/jobs/{job_id}/resume": "write",
    "POST /v1/jobs/{job_id}/retry": "write",
    "GET /v1/jobs/{job_id}/events": "read",
    "GET /v1/jobs/{job_id}/iterations": "read",
    "GET /v1/iterations/{iteration_id}": "read",
    "GET /v1/jobs/{job_id}/iterations/{iteration}/pairs": "read",
    "GET /v1/jobs/{job_id}/iterations/{iteration}/pairs/{pair_id}": "read",
    "GET /v1/jobs/{job_id}/data": "read",
    "GET /v1/jobs/{job_id}/data/{iteration}": "read",
    "GET /v1/jobs/{job_id}/data/{iteration}/{name}": "read",
    "GET /v1/recipes": "read",
    "GET /v1/recipes/{name}": "read",
    "GET /v1/base-models": "read",
    "POST /v1/templates": "write",
    "GET /v1/templates": "read",
    "GET /v1/templates/{name}": "read",
    "POST /v1/models": "write",
    "GET /v1/models": "read",
    "GET /v1/models/{name}/versions": "read",
    "GET /v1/models/{name}/versions/{number}": "read",
    "GET /v1/models/{name}/versions/{number}/files": "read",
    "GET /v1/models/{name}/versions/{number}/files/{file}": "read",
    "DELETE /v1/models/{name}/versions/{number}": "promote",
    "GET /v1/models/{name}/aliases": "read",
    "GET /v1/models/{name}/aliases/{alias}": "read",
    "PUT /v1/models/{name}/aliases/{alias}": "promote",
    "POST /v1/models/{name}/aliases/{alias}/rollback": "promote",
    "PUT /v1/models/{name}/aliases/{alias}/canary": "promote",
    "GET /v1/models/{name}/aliases/{alias}/canary": "read",
    "DELETE /v1/models/{name}/aliases/{alias}/canary": "promote",
    "GET /v1/models/{name}/aliases/{alias}/canary/report": "read",
    "GET /v1/canaries": "read",
    "GET /v1/canaries/{canary_id}/report": "read",
    "GET /v1/verdicts": "read",
    "GET /v1/verdicts/{verdict_id}": "read",
    "POST /v1/models/{name}/versions/{number}/promote": "promote",
    "GET /v1/models/{name}/versions/{number}/promotions": "read",
    "GET /v1/models/{name}/promotions": "read",
    "POST /v1/evaluations": "write",
    "GET /v1/evaluations": "read",
    "GET /v1/evaluations/{evaluation_id}": "read",
    "GET /v1/evaluations/{evaluation_id}/compare/{other_id}": "read",
    "POST /v1/models/{name}/versions/{number}/reviews": "write",
    "GET /v1/models/{name}/versions/{number}/reviews": "read",
    "GET /v1/models/{name}/versions/{number}/reviews/summary": "read",
    "GET /v1/models/{name}/reviews/drift": "read",
    "GET /v1/reviews/next": "read",
    "POST /v1/reviews/{item}/answers": "write",
    "POST /v1/reviews/{item}/skip": "write",
    "GET /v1/engines": "operator",
    "POST /judge": "judge",
    "POST /v1/judge": "judge",
    "POST /v1/score": "judge",
    "POST /v1/rank": "judge",
    "POST /openai/v1/chat/completions": "judge",
    "POST /v1/chat/completions": "judge",
    "GET /openai/v1/models": "judge",
    "GET /openai/v1/models/{ref}": "judge",
    "POST /v1/judge/batches": "judge",
    "GET /v1/judge/batches": "judge",
    "GET /v1/judge/batches/{batch_id}": "judge",
    "POST /v1/judge/batches/{batch_id}/cancel": "judge",
    "GET /v1/judge/batches/{batch_id}/results": "judge",
    "POST /v1/keys": "admin",
    "GET /v1/keys": "admin",
    "POST /v1/keys/{key_id}/rotate": "admin",
    "DELETE /v1/keys/{key_id}": "admin",
    "POST /v1/projects": "operator",
    "GET /v1/projects": "operator",
    "GET /v1/projects/{project_id}": "operator",
    "PATCH /v1/projects/{project_id}": "operator",
    "POST /v1/projects/{project_id}/keys": "operator",
    "POST /v1/webhooks": "admin",
    "GET /v1/webhooks": "admin",
    "GET /v1/webhooks/{webhook_id}": "admin",
    "PATCH /v1/webhooks/{webhook_id}": "admin",
    "DELETE /v1/webhooks/{webhook_id}": "admin",
    "POST /v1/webhooks/{webhook_id}/rotate-secret": "admin",
    "POST /v1/webhooks/{webhook_id}/test": "admin",
    "GET /v1/webhooks/{webhook_id}/deliveries": "admin",
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": "admin",
    "GET /v1/usage": "read",
    "GET /v1/audit": "admin",
    "GET /metrics": "operator",
}
"""METHOD path -> rule."""

DOCS = problem_docs(401, 403, 429)
"""OpenAPI `responses` of every route that has a rule."""
KNOWN_SECONDS = 2.0
"""So long a gateway takes a key to be what it was: a revoked one is good no longer than this."""
_KNOWN = 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="A key of `POST /v1/keys` or `selftaught keys create`. The embedded stack, which "
    "only this machine can reach, asks for one only where somebody has to stand for it.",
)
Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class KnownKeys:
    """Keys that were looked up in the last KNOWN_SECONDS, so that not every call asks Postgres."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, keys.Caller]] = OrderedDict()

    async def caller(self, secret: str) -> keys.Caller:
        """Raises keys.InvalidKey."""
        hashed = keys.sha256(secret)
        known = self._known.get(hashed)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        found = await run_in_threadpool(_look_up, secret)
        self._known[hashed] = (time.monotonic() + KNOWN_SECONDS, found)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return found


def _look_up(secret: str) -> keys.Caller:
    with transaction() as session:
        return keys.authenticate(session, secret)


async def access(request: Request, given: Given) -> keys.Caller:
    """Let the request in, as its caller's project, or refuse it (401, 403, 429).

    Beyond its project's rate nothing is done for it; else what changes something is in the audit
    log, also if it is refused.
    """
    rule = rule_of(request)
    if given is None:
        caller = _without_key(request)
    else:
        try:
            caller = await request.app.state.known_keys.caller(given.credentials)
        except keys.InvalidKey as error:
            raise unauthorised("invalid_key", str(error)) from error
    request.state.caller = caller
    request.state.secret = None if given is None else given.credentials
    if not (rule == "operator" and is_operator(caller)):  # who also looks when Postgres is away
        await limits.enter(request, caller.project)
    await around.begin(request, caller)
    _need(caller, rule)
    tenancy.enter(None if rule == "operator" else caller.project)
    return caller


Caller = Annotated[keys.Caller, Depends(access)]
"""Who called."""


async def still_good(request: Request) -> bool:
    """Whether the key that a long answer was begun with is still one, with the scope for it."""
    secret: str | None = request.state.secret
    if secret is None:
        return True
    with tenancy.inside(None):
        try:
            _need(await request.app.state.known_keys.caller(secret), rule_of(request))
        except (keys.InvalidKey, Refused):
            return False
    return True


def rule_of(request: Request) -> Rule:
    """The rule of the route that a request has come to."""
    route: APIRoute = request.scope["route"]
    return RULES[f"{request.method} {route.path_format}"]


def check(routes: Iterable[APIRoute]) -> None:
    """Raises RuntimeError unless every route has a rule and every rule a route."""
    found = {f"{method} {route.path_format}" for route in routes for method in route.methods or ()}
    if lacking := sorted(found - RULES.keys()):
        raise RuntimeError(f"routes without a rule in services/api/access.py: {lacking}")
    if idle := sorted(RULES.keys() - found):
        raise RuntimeError(f"rules without a route in services/api/access.py: {idle}")


def unauthorised(code: str, detail: str) -> Refused:
    """401, as RFC 9110 wants it."""
    return Refused(401, code, detail, headers={"WWW-Authenticate": "Bearer"})


def _without_key(request: Request) -> keys.Caller:
    if not get_settings().open:
        raise unauthorised("key_required", "send a key: Authorization: Bearer st_...")
    # What another site's page has a browser send to this machine is not from its user.
    # By the header itself: of one that is odd Starlette's URL has the server's own address.
    if not _of_this_machine(f"//{request.headers.get('host', '')}"):
        detail = "without a key this gateway answers to localhost only"
        raise Refused(403, "foreign_host", detail)
    origin = request.headers.get("origin")
    if origin is not None and not _of_this_machine(origin):
        raise Refused(403, "foreign_origin", "a page of another site sent this, without a key")
    return keys.ANYBODY


def _of_this_machine(origin: str) -> bool:
    try:
        return urlsplit(origin).hostname in _LOOPBACK
    except ValueError:  # no URL at all
        return False


def is_operator(caller: keys.Caller) -> bool:
    """Whether the operator's routes answer this caller."""
    return caller.project == tenancy.DEFAULT and "admin" in caller.scopes


def _need(caller: keys.Caller, rule: Rule) -> None:
    if rule == "any":
        return
    scope: Scope = "admin" if rule == "operator" else rule
    if scope not in caller.scopes:
        raise Refused(403, "missing_scope", f"{caller.told} lacks the scope {scope!r}")
    if rule == "operator" and not is_operator(caller):
        detail = f"this is for keys of the project {tenancy.DEFAULT!r}, the operator's own"
        raise Refused(403, "operator_only", detail)
