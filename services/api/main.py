"""The gateway: everything a client may ask for, nothing that computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

import selftaught
from selftaught import http
from selftaught.settings import get_settings
from services.api import (
    access,
    around,
    audit,
    batches,
    caller,
    canaries,
    chat,
    data,
    datasets,
    engines,
    evaluations,
    events,
    files,
    health,
    idempotency,
    iterations,
    jobs,
    judge,
    keys,
    limits,
    metrics,
    models,
    pages,
    pairs,
    projects,
    promotions,
    rates,
    recipes,
    reviews,
    templates,
    usage,
    verdicts,
    webhooks,
)

RESOURCES = (
    judge,
    datasets,
    jobs,
    events,
    iterations,
    data,
    pairs,
    recipes,
    templates,
    models,
    files,
    canaries,
    verdicts,
    promotions,
    evaluations,
    reviews,
    engines,
    chat,
    batches,
    caller,
    keys,
    projects,
    webhooks,
    usage,
    audit,
    metrics,
)
"""All that has rules (access.RULES). Routes are tried in this order; judge is asked most."""


TAGS = {
    "datasets": "Uploads: instructions, labelled pairs, benchmarks.",
    "jobs": "From a dataset to versions: post a job, follow it, cancel it.",
    "iterations": "A job's rounds: what each kept, and how good its version became.",
    "data": "Everything that a job made, to take away.",
    "recipes": "All settings of a job, under a name.",
    "templates": "What models are asked with. A name never changes its content.",
    "models": "Immutable versions, and the aliases that point at them.",
    "canaries": "A version tried on a share of an alias's calls, before it leads.",
    "verdicts": "The log of answers, if it is on, and where each came from.",
    "evaluations": "A version on a benchmark, and two of them compared.",
    "reviews": "People look at a version's judgments, blind; how well it agrees with them.",
    "judge": "Which response is better, how good is one, which is the best of many.",
    "openai": "The same versions as OpenAI's clients ask for models; errors are OpenAI's, too.",
    "access": "Projects, which see nothing of each other, their keys, limits and audit log.",
    "webhooks": "Your own addresses, told of events, signed by Standard Webhooks.",
    "operations": "For those who run the platform.",
}
"""What each tag holds, for the OpenAPI document."""


def create_app() -> FastAPI:
    """A new gateway; it connects to nothing until it is asked."""
    app = FastAPI(
        title="selftaught",
        summary="Turns a pile of unlabelled instructions into a judge.",
        description="Upload instructions, post one job, follow its iterations, and ask `/judge`, "
        "which answers with the newest version that passed its gate. Errors are problems "
        "(RFC 9457): programs read `code`, people `detail`.",
        version=selftaught.__version__,
        contact={"name": "Whoever runs this gateway"},
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "This gateway."}],
        openapi_tags=[{"name": name, "description": told} for name, told in TAGS.items()],
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        docs_url=None,  # pages.py has one that loads nothing from elsewhere
        redoc_url=None,
    )
    registry = CollectorRegistry()
    registry.register(metrics.WorkCollector())
    app.state.registry = registry
    app.add_middleware(around.Around)
    app.add_exception_handler(idempotency.Replayed, idempotency.on_replayed)
    app.state.streaming = frozenset({datasets.router.prefix, batches.router.prefix})
    http.install(app, registry, streaming=app.state.streaming, origins=get_settings().cors_origins)
    app.add_middleware(chat.Errors)
    app.openapi = cache(chat.documented(app.openapi))  # type: ignore[method-assign]
    routes = [
        route
        for resource in RESOURCES
        for route in resource.router.routes
        if isinstance(route, APIRoute)
    ]
    access.check(routes)
    app.state.known_keys = access.KnownKeys()
    app.state.standings = limits.Standings()
    app.state.streams = Counter()  # of events, by project
    for resource in RESOURCES:
        app.include_router(
            resource.router, dependencies=[Depends(access.access)], responses=access.DOCS
        )
    app.include_router(health.router)
    app.include_router(pages.router)
    app.mount(pages.FILES, pages.files())
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with judge.evaluators(get_settings().evaluator_url) as found:
        app.state.evaluators = found
        app.state.rates = rates.Rates(get_settings().redis_url)
        yield
        await app.state.rates.close()


def _operation_id(route: APIRoute) -> str:
    return route.name


app = create_app()
