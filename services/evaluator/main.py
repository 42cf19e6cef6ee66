"""The judge service: POST /judge, answered by the version that its reference means now."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Depends, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy.exc import NoResultFound

import selftaught
from selftaught import http, tenancy
from selftaught.contracts import (
    ChatIn,
    ChatOut,
    JudgeIn,
    JudgeOut,
    Prepare,
    Prepared,
    RankIn,
    Ranking,
    ResponseScore,
    ScoreIn,
)
from selftaught.http import Refused, problem, problem_docs, request_id
from selftaught.inference import (
    EngineRefused,
    EngineUnavailable,
    InferenceError,
    ModelLoadError,
)
from selftaught.inference.openai import PROMPT_STATUS
from selftaught.readiness import READY_DOCS, Alive, Readiness, postgres, readiness, schema
from selftaught.registry import UnknownName
from selftaught.settings import get_settings
from services.evaluator import chat, live
from services.evaluator.judge import Busy, DeadlineExceeded, Judge
from services.evaluator.metrics import Counted
from services.evaluator.ruling import TooLong

logger = logging.getLogger(__name__)

REFUSED = (
    "the model takes no such messages: some know no system message, others want a user's and an "
    "assistant's in turns"
)
DOCS = problem_docs(404, 409, 429, 502, 503, 504)


def create_app() -> FastAPI:
    """A new judge service; models load when they are first asked."""
    settings = get_settings()
    registry = CollectorRegistry()
    counted = Counted(registry)
    judge = Judge(settings.judge_in_flight, settings.judge_cache_bytes, counted)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await judge.warm_up()
        async with judge.background():
            yield
        await judge.close()

    app = FastAPI(
        title="selftaught evaluator",
        summary="Holds the models and answers for the gateway; it is not for clients.",
        version=selftaught.__version__,
        contact={"name": "Whoever runs this platform"},
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "This evaluator."}],
        openapi_tags=[
            {"name": "judge", "description": "Questions, as the gateway passes them on."},
            {"name": "operations", "description": "For those who run the platform."},
        ],
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        dependencies=[Depends(_project)],
    )
    gauge = Gauge("selftaught_judge_in_flight", "Calls being answered.", registry=registry)
    gauge.set_function(lambda: judge.now)
    registry.register(judge.recorder.dropped)
    registry.register(judge.traffic.shadows)
    http.install(app, registry, streaming=frozenset())
    app.add_exception_handler(InferenceError, _on_inference_error)

    @app.post("/judge", name="judge", tags=["judge"], response_model=JudgeOut, responses=DOCS)
    async def judge_pair(request: Request, body: JudgeIn) -> JudgeOut | Response:
        """Which of two responses is better?"""

        async def judged(listener: live.Live | None = None) -> JudgeOut:
            with refusals(), counted.timed("judge"):
                out = await judge.judge(body, request_id(request), listener)
            counted.verdict(out.verdict)
            if not out.cached:
                counted.parts("judge", out.latency)
                counted.unread(out.parse_failures)
            return out

        if body.stream:
            return await live.answer(request, judged)
        return await http.while_connected(request, judged())

    @app.post("/v1/score", name="score", tags=["judge"], responses=DOCS)
    async def score(request: Request, body: ScoreIn) -> ResponseScore:
        """How good is one response?"""
        with refusals(), counted.timed("score"):
            out = await http.while_connected(request, judge.score(body))
        if not out.cached:
            counted.parts("score", out.latency)
            counted.unread(out.parse_failures)
        return out

    @app.post("/v1/rank", name="rank", tags=["judge"], responses=DOCS)
    async def rank(request: Request, body: RankIn) -> Ranking:
        """Which responses are better than which?"""
        with refusals(), counted.timed("rank"):
            return await http.while_connected(request, judge.rank(body))

    @app.post(
        "/chat/completions", name="chat", tags=["judge"], response_model=ChatOut, responses=DOCS
    )
    async def chat_completion(request: Request, body: ChatIn) -> ChatOut | Response:
        """What does a version say in this conversation?"""

        async def asked(heard: chat.Chunks | None = None) -> ChatOut:
            with refusals(), counted.timed("chat"):
                try:
                    return await judge.chat(body, heard)
                except EngineRefused as error:
                    if error.status not in PROMPT_STATUS:
                        raise
                    raise Refused(422, "prompt_refused", REFUSED, param="messages") from error

        if body.stream:
            return await chat.answer(request, body, asked)
        return await http.while_connected(request, asked())

    @app.post(
        "/prepare", name="prepare", tags=["operations"], responses=problem_docs(404, 502, 503)
    )
    async def prepare(body: Prepare) -> Prepared:
        """Open a version before an alias names it; the gateway asks."""
        try:
            version = await judge.prepare(body.version)
        except NoResultFound as error:
            detail = f"there is no version {body.version!r}"
            raise Refused(404, "unknown_model", detail, param="version") from error
        return Prepared(model=version.ref)

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> Alive:
        """The process answers."""
        return Alive()

    @app.get("/readyz", tags=["operations"], responses=READY_DOCS)
    def readyz(response: Response) -> Readiness:
        """Postgres answers, and the schema is the one this code knows."""
        found = readiness({"postgres": postgres, "schema": schema})
        response.status_code = 200 if found.ready else 503
        return found

    @app.get("/metrics", tags=["operations"], response_class=Response, responses=http.METRICS_DOCS)
    def metrics() -> Response:
        """For Prometheus to scrape."""
        return http.exposition(registry)

    return app


async def _project(request: Request) -> None:
    """Work for whom the gateway says; the first project where it does not say."""
    tenancy.enter(request.headers.get(tenancy.HEADER, tenancy.DEFAULT))


@contextmanager
def refusals() -> Iterator[None]:
    """The judge's own refusals as problems."""
    try:
        yield
    except TooLong as error:
        raise Refused(422, "too_long", str(error)) from error
    except UnknownName as error:
        raise Refused(404, "unknown_template", str(error), param="template") from error
    except Busy as error:
        headers = {"Retry-After": "1"}
        raise Refused(429, "too_many_calls", str(error), headers=headers) from error
    except DeadlineExceeded as error:
        raise Refused(504, "deadline_exceeded", str(error)) from error


async def _on_inference_error(request: Request, error: Exception) -> Response:
    """A model that does not answer; what it said is logged, and told where it helps."""
    rid = request_id(request)
    logger.error("request %s: %s: %s", rid, type(error).__name__, error)
    if isinstance(error, EngineUnavailable):
        detail = "the model's endpoint does not answer; try again soon"
        return problem(503, "engine_unavailable", detail, rid, headers={"Retry-After": "5"})
    if isinstance(error, EngineRefused):
        return problem(502, "engine_refused", "the model's endpoint refused to answer", rid)
    reason = error.reason if isinstance(error, ModelLoadError) else "the model failed"
    return problem(500, "model_failed", reason, rid)


app = create_app()
