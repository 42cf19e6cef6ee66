"""The gateway: everything a client may ask for, nothing that computes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

import selftaught
from selftaught import http
from selftaught.settings import get_settings
from services.api import (
    batches,
    data,
    datasets,
    engines,
    evaluations,
    events,
    health,
    iterations,
    jobs,
    judge,
    metrics,
    models,
    recipes,
    reviews,
    templates,
)

RESOURCES = (
    datasets,
    jobs,
    events,
    iterations,
    data,
    recipes,
    templates,
    models,
    evaluations,
    reviews,
    engines,
    judge,
    batches,
    health,
    metrics,
)


def create_app() -> FastAPI:
    """A new gateway; it connects to nothing until it is asked."""
    app = FastAPI(
        title="selftaught",
        summary="Turns a pile of unlabelled instructions into a judge.",
        version=selftaught.__version__,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
    )
    registry = CollectorRegistry()
    registry.register(metrics.WorkCollector())
    app.state.registry = registry
    http.install(
        app, registry, streaming=frozenset({datasets.router.prefix, batches.router.prefix})
    )
    for resource in RESOURCES:
        app.include_router(resource.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with judge.evaluators(get_settings().evaluator_url) as found:
        app.state.evaluators = found
        yield


def _operation_id(route: APIRoute) -> str:
    return route.name


app = create_app()
