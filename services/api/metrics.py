"""Prometheus metrics: requests as they happen, the state of the work read from Postgres."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from selftaught import reviews
from selftaught.contracts import State
from selftaught.database import transaction
from selftaught.database.tables import Chunk, Job, Webhook, WebhookDelivery
from selftaught.http import METRICS_DOCS, exposition

logger = logging.getLogger(__name__)
router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses=METRICS_DOCS)
def metrics(request: Request) -> Response:
    """For Prometheus to scrape."""
    return exposition(request.app.state.registry)


class WorkCollector(Collector):
    """Jobs and waiting chunks, counted at each scrape."""

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("selftaught_database_up", "Whether the work could be counted.")
        try:
            found = _gauges()
        except SQLAlchemyError:
            logger.exception("the work could not be counted for a scrape")
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from found


def _reviews(session: Session) -> list[Metric]:
    agreement = GaugeMetricFamily(
        "selftaught_review_agreement",
        "Share of a source's pairs on which the newest reviewed version agrees with people.",
        labels=["model", "version"],
    )
    drift = GaugeMetricFamily(
        "selftaught_review_drift",
        "Whether that has fallen: 0 ok, 1 watch, 2 alarm.",
        labels=["model"],
    )
    for model in reviews.reviewed_models(session):
        found = reviews.standing(session, model)
        if found is not None:
            version, share, state = found
            agreement.add_metric([model, str(version.number)], share.agreement or 0.0)
            drift.add_metric([model], reviews.STATES.index(state))
    return [agreement, drift]


def _webhooks(session: Session) -> Metric:
    late = GaugeMetricFamily(
        "selftaught_webhooks_late_seconds",
        "How long the delivery that is due longest has been due: is the process webhooks there?",
    )
    waits = func.extract("epoch", func.clock_timestamp() - func.min(WebhookDelivery.next_at))
    seconds = session.scalar(
        select(waits)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(WebhookDelivery.state == "pending", Webhook.state == "enabled")
    )
    late.add_metric([], max(0.0, float(seconds or 0)))
    return late


def _gauges() -> list[Metric]:
    jobs = GaugeMetricFamily("selftaught_jobs", "Jobs by state.", labels=["state"])
    ready = GaugeMetricFamily(
        "selftaught_ready_chunks", "Chunks that wait for a worker.", labels=["queue"]
    )
    oldest = GaugeMetricFamily(
        "selftaught_oldest_ready_chunk_seconds", "Age of the oldest of them.", labels=["queue"]
    )
    age = func.extract("epoch", func.clock_timestamp() - func.min(Chunk.created_at))
    with transaction() as session:
        by_state = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
        waiting = session.execute(
            select(Chunk.queue, func.count(), age)
            .join(Job, Job.id == Chunk.job_id)
            .where(Chunk.state == State.READY, Job.state == State.RUNNING)
            .group_by(Chunk.queue)
        )
        for queue, count, seconds in waiting:
            ready.add_metric([queue], count)
            oldest.add_metric([queue], float(seconds))
        others = [*_reviews(session), _webhooks(session)]
    for state in State:
        jobs.add_metric([state], by_state.get(state, 0))
    return [jobs, ready, oldest, *others]
